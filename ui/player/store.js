// What has arrived from Python. Messages carry a number per run; a missing number, or a run the player
// never saw begin, is answered by asking for the whole run again.

import { Lane } from './lane.js';

const ATTEMPTS = 4;
const PAUSE_MS = 250;

export class Store {
  /** `changed({reset, loaded})` is called after every change; `loaded`: a complete run came all at once. */
  constructor({ resync, changed }) {
    this.askAgain = resync ?? null;
    this.changed = changed;
    this.generation = 0;
    this.clear(null, 1);
  }

  clear(run, lanes) {
    this.run = run;
    this.seq = -1;
    this.count = Math.max(1, Math.min(8, lanes | 0));
    this.lanes = []; // sparse until each lane has opened
    this.vocabularies = []; // one a lane: lanes may come from models with other tokenizers
    this.blind = null; // {number, of, best}: a blind race, of which only the texts are shown until best is known
    this.fault = null;
    this.live = false; // seen as it happened
    this.fetching = false;
    this.late = [];
  }

  /** Nothing more will come. */
  get complete() {
    if (this.fault) return true;
    const opened = this.lanes.filter(Boolean);
    if (opened.some((lane) => lane.tail?.stop_reason === 'cancelled')) return true;
    return opened.length === this.count && opened.every((lane) => lane.ended);
  }

  /** Take one message of the live protocol, as a JSON string. */
  receive(json) {
    const message = parse(json);
    if (message === null) {
      this.fault = 'A message from the server could not be read; reload the page.';
      this.changed({});
      return;
    }
    const reset = message.run !== this.run;
    if (reset) {
      this.generation += 1;
      this.clear(message.run, message.lanes);
      this.live = message.seq === 0;
    }
    if (this.fetching) {
      this.late.push(message);
    } else if (message.seq === this.seq + 1) {
      this.apply(message);
      this.changed({ reset });
    } else if (message.seq > this.seq) {
      this.late.push(message);
      this.fetch(0);
      this.changed({ reset });
    }
  }

  /** Show the run that the server knows by this id. */
  open(run) {
    this.generation += 1;
    this.clear(run, 1);
    this.changed({ reset: true });
    return this.fetch(0);
  }

  apply(message) {
    this.seq = message.seq;
    this.blind = message.blind ?? null;
    const words = (this.vocabularies[message.lane] ??= new Map());
    for (const [id, piece] of Object.entries(message.vocabulary ?? {})) words.set(Number(id), String(piece));
    if (message.type === 'open') {
      this.lanes[message.lane] = new Lane(message.head, words);
      return;
    }
    const lane = this.lanes[message.lane];
    if (message.type === 'fault') {
      this.fault = String(message.text);
      if (lane) lane.fault = this.fault;
    } else if (lane && message.type === 'steps') {
      lane.push(message.steps);
    } else if (lane && message.type === 'notes') {
      lane.head.annotations = message.tail.annotations;
    } else if (lane && message.type === 'end') {
      lane.tail = message.tail;
      // An AR lane may come after the lanes that it is the measure of.
      for (const [number, verdict] of Object.entries(message.tail.verdicts ?? {})) {
        const earlier = this.lanes[number]?.tail;
        if (earlier) earlier.identical = verdict;
      }
    }
  }

  /** The vote on a blind race is in: what it hid can be shown. */
  voted(blind) {
    this.blind = blind;
    this.changed({ loaded: true });
  }

  async fetch(attempt) {
    const generation = this.generation;
    const stale = () => generation !== this.generation;
    this.fetching = true;
    let answer = null;
    try {
      answer = this.askAgain ? await this.askAgain({ run: this.run }) : { error: 'Steps are missing and cannot be fetched here.' };
    } catch {
      answer = null; // the connection failed: worth another attempt
    }
    if (stale()) return;
    if (!answer?.error && !Array.isArray(answer?.messages)) {
      if (attempt + 1 < ATTEMPTS) {
        await new Promise((resolve) => setTimeout(resolve, PAUSE_MS * 2 ** attempt));
        if (!stale()) await this.fetch(attempt + 1);
        return;
      }
      answer = { error: 'Some steps did not arrive and the server does not answer; check the connection and reload the page.' };
    }
    this.fetching = false;
    if (answer.error) {
      this.fault = String(answer.error);
      this.late = [];
      this.changed({});
      return;
    }
    this.rebuild(answer.messages, attempt);
  }

  /** Start the run over from the server's account of it, then add what came in the meantime. */
  rebuild(messages, attempt) {
    const { run, live, late } = this;
    this.clear(run, messages[0]?.lanes ?? this.count);
    this.live = live;
    for (const message of messages) this.apply(message);
    late.sort((a, b) => a.seq - b.seq);
    for (const message of late) {
      if (message.seq <= this.seq) continue;
      if (message.seq !== this.seq + 1) {
        this.late.push(message);
        continue;
      }
      this.apply(message);
    }
    const loaded = !this.live && this.complete;
    if (!loaded) this.live = true;
    if (this.late.length && attempt + 1 < ATTEMPTS) this.fetch(attempt + 1);
    this.changed({ loaded });
  }

  /** Show finished traces without any server. `tails[i]` may carry metrics and the identity verdict. */
  loadTraces(traces, tails = []) {
    this.generation += 1;
    this.clear(traces[0].id ?? 'trace', traces.length);
    traces.forEach((trace, index) => {
      const words = new Map(Object.entries(trace.vocabulary ?? {}).map(([id, piece]) => [Number(id), String(piece)]));
      const lane = new Lane(trace, words);
      lane.push(trace.steps);
      lane.tail = {
        metrics: null,
        identical: null,
        ...tails[index],
        output: trace.output,
        stop_reason: trace.stop_reason,
        environment: trace.environment,
      };
      this.lanes[index] = lane;
    });
    this.changed({ reset: true, loaded: true });
  }
}

function parse(json) {
  try {
    const message = JSON.parse(json);
    return typeof message?.run === 'string' && Number.isInteger(message.seq) ? message : null;
  } catch {
    return null;
  }
}

// Which panels there are, in the order of their tabs.

import { CYCLES } from './cycles.js';
import { HISTORY } from './history.js';
import { MAP } from './map.js';
import { PATTERN } from './pattern.js';
import { WHATIF } from './whatif.js';

export const PANELS = [MAP, HISTORY, PATTERN, CYCLES, WHATIF];

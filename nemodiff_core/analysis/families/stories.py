"""Short stories: a small grammar of plots over named children, objects, animals and places.

A plot is a list of slots, one sentence (or two) each. A slot is either a list of alternatives, or a
pair ``(with_animal, without_animal)`` of such lists. The words stay few and the things named in the
prompt come back throughout the story, because a tiny model has to learn to carry them over.
"""

from __future__ import annotations

import random
import re

from nemodiff_core.analysis.example import Example, Grade

NAME = "story"

GIRLS = "Mia Anna Lily Emma Rosa Nora Ella Sara Lucy Zoe Maya Ruth Clara Ivy Jane".split()
BOYS = "Tom Ben Leo Max Sam Jack Noah Finn Omar Paul Hugo Adam Oscar Luke Theo".split()

# object -> (how one uses it, the same in the past)
OBJECTS = {
    "kite": ("fly", "flew"), "lamp": ("light", "lit"), "ball": ("throw", "threw"), "hat": ("wear", "wore"),
    "book": ("read", "read"), "drum": ("play", "played"), "box": ("open", "opened"), "key": ("hold", "held"),
    "boat": ("sail", "sailed"), "cup": ("fill", "filled"), "basket": ("fill", "filled"),
    "clock": ("watch", "watched"), "scarf": ("wear", "wore"), "bell": ("ring", "rang"), "map": ("read", "read"),
    "bag": ("carry", "carried"), "coat": ("wear", "wore"), "ring": ("wear", "wore"), "doll": ("hold", "held"),
    "flute": ("play", "played"), "blanket": ("hold", "held"), "umbrella": ("open", "opened"),
    "pot": ("fill", "filled"), "jar": ("fill", "filled"), "wagon": ("pull", "pulled"),
    "spoon": ("hold", "held"), "puzzle": ("solve", "solved"), "bucket": ("fill", "filled"),
    "mirror": ("hold", "held"), "whistle": ("blow", "blew"),
}
SKILLS = {"kite", "ball", "drum", "boat", "map", "flute", "puzzle", "whistle", "book"}
FRAGILE = {"kite", "lamp", "drum", "box", "boat", "clock", "basket", "wagon", "umbrella", "flute", "doll", "whistle"}
MADE = {"kite", "lamp", "drum", "box", "boat", "basket", "doll", "wagon", "flute", "puzzle", "bag"}

ADJECTIVES = ["red", "blue", "green", "yellow", "white", "black", "old", "small"]
ANIMALS = "dog cat rabbit duck fox mouse pony goat bird hen frog owl".split()
PLACES = {
    "park": "in the park", "garden": "in the garden", "forest": "in the forest", "hill": "on the hill",
    "river": "by the river", "farm": "on the farm", "lake": "by the lake", "beach": "on the beach",
    "village": "in the village", "valley": "in the valley", "meadow": "in the meadow",
    "bridge": "near the bridge", "harbor": "at the harbor", "orchard": "in the orchard",
}
TIMES = ["One day", "One morning", "One sunny day", "One afternoon"]
FAMILY = [("Grandma", "f"), ("Grandpa", "m"), ("Mom", "f"), ("Dad", "m")]

PHRASINGS = [
    "Write a story about {cast}{p}.", "Write a short story about {cast}{p}.", "Tell me a story about {cast}{p}.",
    "Tell me a short story with {cast}{p}.", "Can you tell me a story about {cast}{p}?",
    "Please write a story with {cast}{p}.", "I would like a story about {cast}{p}.",
    "Make up a story about {cast}{p}.", "A short story about {cast}{p}, please.",
    "Give me a short story with {cast}{p}.", "Tell a story about {cast}{p}.",
    "Could you write a little story about {cast}{p}?", "Story time! Tell me about {cast}{p}.",
]

# plot -> (theme named in some prompts, who helps when only one child is named, slots)
PLOTS: dict[str, tuple[str, str, list]] = {
    "lost": ("something lost and found", "family", [
        ["{t}, {A} lost {his} {o}{p}.", "{t}, {A} was playing{p} when {he} lost {his} {o}."],
        ["{He} looked under the trees and behind the wall, but the {ob} was gone.",
         "{He} looked everywhere, but the {ob} was not there."],
        ['"What is wrong?" asked {B1}.', 'Then {B1} came by. "Why are you sad?" asked {B}.'],
        ['"I lost my {o}," said {A}.', '"My {o} is gone," said {A} in a small voice.'],
        ['"Do not worry. We will look together," said {B}.', '"I will help you find it," said {B}.'],
        (["A clever {an} came to help too. The {an} stopped at a bush, and there was the {o}!",
          "They followed {aan} to a big tree, and behind the tree the {an} found the {o}!"],
         ["They looked for a long time. At last {B} saw the {o} under a bush!",
          "They walked back along the path, and there was the {o}, behind a big tree!"]),
        ['"Thank you!" said {A}, and {he} held the {ob} all the way home.',
         "{A} was very happy and never lost the {ob} again."],
    ]),
    "gift": ("a gift", "family", [
        ["{t}, {B1} came to see {A}{p} with a gift.", "{t}, {B1} had a gift for {A}{p}."],
        ['"This is for you," said {B}.', '"Open it," said {B} with a smile.'],
        ["{A} opened the paper with care. It was {ao}!", "{A} looked inside and found {ao}!"],
        ['"It is beautiful!" said {A}.', '"I always wanted {ao}!" said {A}.'],
        (["{A} {used} the {ob} right away, and a little {an} came to watch.",
          "A little {an} came close to look. {A} showed the {o} to the {an} and laughed."],
         ["{A} {used} the {ob} right away.", "{A} could not wait to {use} the {ob}."]),
        ["In the evening, {A} made a card for {B} with a picture of the {ob}.",
         "In the evening, {A} made a cake for {B} to say thank you."],
        ["A good gift makes two people happy.", "{A} kept the {o} for many years."],
    ]),
    "storm": ("a storm", "family", [
        ["{t}, {A} and {B1} were walking{p} with {ao}.", "{t}, {A} took {his} {o} for a walk{p} with {B1}."],
        ["Soon the sky turned dark and a strong wind began to blow.", "Then a big storm came, and it began to rain."],
        ["The wind took the {o} and carried it away!", "The wind pulled the {ob} out of {his} hands!"],
        ['"My {ob}!" cried {A}.', '"Oh no, my {o}!" said {A}.'],
        ['"First we must be safe," said {B}. They hid in a little house and waited.',
         '"Come with me," said {B}, and they ran to a little house to wait.'],
        (["There they met {aan}, wet and cold. {A} kept the {an} warm until the storm was over.",
          "A wet {an} was hiding there too, and {A} kept the {an} warm."],
         ["They listened to the rain and told stories until the storm was over.",
          "They listened to the rain and sang songs until the sun came back."]),
        ["When they went outside, the {o} was right next to the door.",
         "When they went outside, the {o} was in a tree, wet but not broken."],
        ['"The storm gave it back," said {A}, and they laughed.', "{A} took the {ob} and walked home in the sun."],
    ]),
    "race": ("a race", "peer", [
        ["{t}, there was a big race{p}.", "{t}, all the children came to a race{p}."],
        ["The prize was {ao}.", "The winner would get {ao}."],
        ['"I want to win the {o}!" said {A}.', '"That {o} will be mine!" said {A}.'],
        ["{A} ran fast, and {B1} was close behind.", "{A} was first, and {B1} was second."],
        (["Then {B} fell over {aan} on the path. The {an} was fine, but {B} could not get up.",
          "Then {aan} jumped on the path, and {B} fell down."],
         ["Then {B} fell over a stone.", "Then {A} heard a cry. {Bc} was on the ground."]),
        ["{A} stopped, went back and took {B} by the hand.", "{A} did not think about the prize. {He} ran back to help."],
        ['"Now you will not win," said {B}. "That is all right," said {A}.',
         '"Thank you for coming back," said {B}. They finished the race together.'],
        ["They came last, but everyone gave the {o} to {A} for being so kind.",
         "In the end, {A} got the {ob} for being a good friend."],
    ]),
    "repair": ("something broken", "family", [
        ["{A} had {ao} and took it everywhere, but {t2} it broke{p}.", "{t}, {A} fell down{p} and broke {his} {o}."],
        (["A {an} looked at the pieces, and {A} began to cry.", "{A} sat down next to {aan} and showed it the pieces."],
         ["{A} looked at the pieces and began to cry.", "{A} picked up the pieces."]),
        ['"Now I can never {use} it again," said {A}.', '"My {ob} is broken," said {A}.'],
        ['{B1c} looked at the {o}. "We can fix it," said {B}.', '"Do not cry," said {B1}. "We can fix the {ob}."'],
        ["They found some glue and some string and worked all afternoon.",
         "They worked slowly and put each piece back in its place."],
        (["The {an} sat by the table and waited.", "The {an} came close to watch."],
         ["It was hard work, but they did not stop.", "{A} held the pieces, and {B} used the glue."]),
        ["At last the {o} was as good as new.", "In the evening the {o} was whole again."],
        ['"I love it even more now," said {A}.', "{A} {used} the {ob} and smiled, for they had fixed it together."],
    ]),
    "secret": ("a secret", "peer", [
        ["{A} had a secret. {He} kept {ao} in a hole under a tree{p}.", "{A} had a secret place{p}, and there {he} kept {ao}."],
        ["Nobody knew about the {ob}.", "{He} went there every day to look at the {ob}."],
        (["Only {aan} knew, and the {an} could not tell.", "Only {aan} came along, and the {an} never told."],
         ["But a secret is heavy when you are alone.", "{He} never told anyone."]),
        ['{t}, {B1} asked, "Where do you go every day?"', '{t}, {B1} met {him} there. "What do you have?" asked {B}.'],
        ['"Come, I will show you my {o}," said {A} at last.', '"Can you keep a secret?" asked {A}. "Then look at my {o}."'],
        ['"It is wonderful," said {B}. "I will not tell anyone."', '"Oh!" said {B}. "It is the best {ob} in the world."'],
        ["From then on the secret belonged to both of them.", "Now {A} had a secret and a friend, and that was even better."],
    ]),
    "learn": ("learning something new", "family", [
        ["{A} wanted to {use} {ao}, but {he} did not know how.", "{A} had {ao}, but {he} could not {use} it."],
        ["{t}, {he} tried{p} again and again, but it did not work.", "{t}, {he} went out{p} and tried. It went wrong."],
        (["Even {aan} laughed at {him}.", "A {an} looked at {him} and ran away."], []),
        ['"I will never learn it," said {A}.', '"It is too hard for me," said {A}.'],
        ['"I can show you," said {B1}. "Go slowly and try again."', '"Everyone is bad at first," said {B1}. "Try with me."'],
        ["They tried again the next day.", "Every day {A} took the {o} and tried again."],
        ["Then one day {A} {used} the {ob}, and it was easy!", "After a week {A} {used} the {ob} without any help!"],
        (['The {an} came back to watch, and {B} said, "Well done!"', 'The {an} jumped in the grass, and {B} smiled.'],
         ['"Well done!" said {B}.', '"I knew you could do it," said {B}.']),
        ["Now {A} helps other children who want to learn.", '"I just had to try again," said {A}.'],
    ]),
    "share": ("sharing", "peer", [
        ["{t}, {A} was playing{p} with {ao}.", "{t}, {A} brought {his} {o} to play{p}."],
        ['{B1c} came and asked, "May I play with the {ob} too?"', '"What a nice {ob}," said {B1}. "May I try it?"'],
        ['"No, it is mine," said {A}.', '"No, I want it for myself," said {A}.'],
        ["{Bc} walked away and sat down alone.", "{Bc} was sad and went to sit under a tree."],
        (["Then {A} saw {aan} give its food to a friend.", "Even {aan} went to sit with {B}, and the {an} did not come back."],
         ["{A} looked at the {ob}, but it was no fun to play alone.", "Soon {A} was bored. It was no fun to be alone."]),
        ['{A} went to {B} and said, "I am sorry. We can share the {o}."', '"I am sorry," said {A}. "Let us share the {o}."'],
        ["They took turns until the sun went down.", "They played with the {ob} all afternoon and laughed a lot."],
        ['"It is more fun with a friend," said {A}.', '"It is better with two," said {A}.'],
    ]),
    "stranger": ("a helpful stranger", "none", [
        ["{t}, {Aw} went for a long walk{p} with {ao}.", "{t}, {Aw} set out on a walk{p} and took {ao} along."],
        ["Soon it was dark, and {they} did not know the way home.",
         "After an hour {they} could not find the path."],
        (["A {an} looked at {them} from the grass.", "Only {aan} was there, and the {an} could not speak."],
         ["There was no sound but the wind.", "It was very quiet."]),
        ['Then an old man came by. "Are you lost?" he asked.', 'Then an old woman came along the path. "Do you need help?" she asked.'],
        ['"Yes," said {A}. "All {we} have is this {o}."', '"Yes, please," said {A}, holding the {ob} tight.'],
        ['"Follow me," said the stranger. "I know every tree here."', '"I know the way," said the stranger. "Come with me."'],
        (["The {an} came along too, and soon {they} saw the lights of home.", "With the {an} behind them, they walked to the door of the house."],
         ["They walked and talked, and soon {they} saw the lights of home.", "The stranger told a funny story, and soon they were home."]),
        ["{A} gave the {o} to the stranger to say thank you.", "{A} wanted to give away the {o}, but the stranger only smiled."],
    ]),
    "market": ("a market", "family", [
        ["{t}, {A} and {B1} went to the market{p}.", "{t}, there was a market{p}, and {A} went there with {B1}."],
        ["They saw apples and bread.", "They saw apples and cake."],
        ["Then {A} saw {ao} on a table.", "On the last table {A} found {ao}."],
        ['"How much is the {o}?" {he} asked. "Three coins," said the woman.', '"I would like the {ob}," {he} said. "It costs three coins," said the man.'],
        ["But {A} had only two coins.", "{A} was sad. {He} had only two coins."],
        (["Just then {aan} ran off with an apple. {A} ran after the {an} and brought the apple back.",
          "Then {aan} jumped on the table, and {A} caught the {an} before anything fell."],
         ['"I will give you one coin," said {B}, "if you carry the bread."', '"Here is one more coin," said {B}. "You can help me carry the apples."']),
        ["So {A} got the {o} for two coins and some help.", "That was good help, and so {A} could have the {ob}."],
        ["{He} went home with the {o}, and {B} was proud.", '"This is the best {ob} in the market," said {A} on the way home.'],
    ]),
    "night": ("being afraid at night", "family", [
        ["{A} and {B1} slept in a tent{p}.", "One night {A} was sleeping in a tent{p}, and {B1} was there too."],
        ["In the middle of the night {A} woke up and saw a big shadow.", "{A} woke up and saw something dark by the door."],
        ['"There is a monster!" cried {A}.', '"Wake up! Something is there!" said {A}.'],
        ['"Let us look," said {B}, and made a light.', '"Do not be afraid," said {B}. "We will look together."'],
        (["It was only {aan}! The {an} was sitting on the {o} and looked at them.",
          "It was only {aan}! The {an} had found the {o} and wanted to play."],
         ["It was only the {o}! The moon had made its shadow very big.", "It was only the {o}, and the moon was behind it."]),
        (['"A {an} is no monster," said {B}, and they laughed.', '"I was afraid of a little {an}!" said {A} and laughed.'],
         ['"A {ob} is no monster," said {B}, and they laughed.', '"I was afraid of my own {ob}!" said {A} and laughed.']),
        ["{A} put the {o} next to the bed and said good night.", "{A} held the {ob} and closed {his} eyes."],
        ["Then {he} slept well until the morning.", "The night was quiet and full of stars."],
    ]),
    "build": ("building something", "family", [
        ["{t}, {A} wanted {ao}, but there was none to buy{p}.", "{t}, {A} was{p2} and had an idea. {He} wanted to make {ao}."],
        ['"Then let us make one," said {B1}.', '"I can help you build it," said {B1}.'],
        ["They looked for wood, paper and string.", "They found some wood, some paper and a lot of string."],
        (["A {an} brought a little stick, as if it wanted to help.", "A {an} sat on the paper, and they had to wait for the {an}."], []),
        ["The first {ob} was too small.", "The first {ob} was too big."],
        ['"We must go slowly," said {B}.', '"We will try again," said {A}.'],
        ["In the evening the {o} was ready.", "At last the {o} was ready."],
        (["{A} {used} the {ob}, and the {an} jumped up and down.", "{A} {used} the {ob} while the {an} looked on."],
         ["{A} {used} the {ob} for the first time.", "{A} {used} the {ob}, and it worked!"]),
        ['"We made it ourselves," said {A}, and {B} smiled.', "It was the best {ob} in the world."],
    ]),
    "misunderstanding": ("a misunderstanding", "peer", [
        ["{t}, {A} put {his} {o} on a bench{p}. When {he} came back, it was gone.",
         "{t}, {A} left {his} {o} under a tree{p}. Soon the {ob} was not there."],
        ["Then {he} saw {B1} with the {o}.", "{B1c} was coming along the path with the {ob}."],
        ['"You took my {ob}!" cried {A}.', '"That is my {o}! Give it back!" said {A}.'],
        ["{Bc} looked very sad.", "{Bc} turned red and did not speak."],
        (['"I did not take it," said {B} at last. "A {an} ran away with the {ob}, and I went after the {an}."',
          '"I wanted to help," said {B}. "A {an} was playing with the {ob}, and I took it from the {an}."'],
         ['"I did not want to take it," said {B}. "It began to rain, and I kept the {ob} dry."',
          '"I wanted to help," said {B}. "The {ob} fell in the mud, and I washed it for you."']),
        ['"I am sorry," said {A}. "I was wrong. Thank you."', '"I should have asked first," said {A}. "I am sorry."'],
        ['"It is all right," said {B}, and they played with the {o} until evening.', "From then on they were good friends."],
    ]),
    "owner": ("finding something", "peer", [
        ["{t}, {A} found {ao}{p}.", "{t}, {A} was walking{p} and found {ao} in the grass."],
        ['"What a nice {ob}," {he} said. "Who lost it?"', '"I would like to keep it," {he} said, "but it is not mine."'],
        (["{He} asked {aan}, but the {an} only looked at {him}.", "A {an} sat there, but the {ob} did not belong to the {an}."], []),
        ["{A} went to every house and asked. At the last house {he} met {B1}.",
         "{A} asked at every house. At the last one {he} met {B1}."],
        ['"I lost my {o}," said {B}, "and I am so sad."', '"Have you seen {ao}?" asked {B}. "I lost mine."'],
        ['"Here it is," said {A} and gave the {ob} back.', '"Is it this one?" asked {A} and held up the {o}.'],
        ['"Thank you! Stay and have some cake," said {B}.', '"You are kind," said {B}. "Will you be my friend?"'],
        ["{A} went home without the {ob}, but with a new friend.", "So {A} lost {ao} and found a friend."],
    ]),
    "tree": ("something stuck in a tree", "family", [
        ["{t}, {A} was{p2} with {his} {o}.", "{t}, {A} took {his} {o} and went out to play{p}."],
        (["A {an} ran by, {A} jumped, and the {ob} flew up into a big tree.", "{A} wanted to show the {ob} to {aan} and threw it up. It stayed in a big tree."],
         ["{He} threw the {ob} too high, and it stayed in a big tree.", "A strong wind came, and the {ob} flew up into a big tree."]),
        ["{A} jumped and jumped, but the tree was too big.", "{A} tried to climb up, but the tree was too big."],
        ['"I need help!" {he} cried, and {B1} came running.', '"I cannot get it down," {he} cried. Then {B1} came to help.'],
        ["{Bc} had an idea and brought a long stick.", '"I know what to do," said {B} and brought a long stick.'],
        ["They pushed once, twice, three times, and the {ob} fell down.", "{A} held the stick, {B} counted to three, and down came the {ob}."],
        (["It fell right in front of the {an}, and everyone laughed.", "The {an} was the first to reach it."],
         ['"We did it!" said {A}.', '"We did it!" said {B}.']),
        ["Together they could do what {A} could not do alone.", "{A} took the {o} home and told everyone about it."],
    ]),
}


def _article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _capital(text: str) -> str:
    """Raise the first letter, also behind an opening quote."""
    at = 1 if text.startswith('"') else 0
    return text[:at] + text[at : at + 1].upper() + text[at + 1 :]


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _choose_plot(rng: random.Random, thing: str, adjective: str) -> str:
    barred = set()
    if thing not in SKILLS:
        barred.add("learn")
    if thing not in FRAGILE:
        barred.add("repair")
    if thing not in MADE or adjective == "old":
        barred.add("build")
    return rng.choice([plot for plot in PLOTS if plot not in barred])


def _words(rng: random.Random, names: list[str], helper: str, thing: str, adjective: str, animal: str, place: str) -> dict[str, str]:
    """Everything a template may name, for one cast."""
    girl = names[0] in GIRLS
    if len(names) > 1:
        first = later = names[1]
    elif helper == "family":
        first = later = rng.choice(FAMILY)[0]
    else:
        later = rng.choice(["the girl", "the boy"])
        first = later.replace("the", "a")
    full = f"{adjective} {thing}".strip()
    where = PLACES.get(place, "")
    two = len(names) > 1
    time = rng.choice(TIMES)
    return {
        "t": time, "t2": time[0].lower() + time[1:],
        "A": names[0], "B": later, "B1": first, "Bc": _capital(later), "B1c": _capital(first),
        "Aw": f"{names[0]} and {names[1]}" if two else names[0],
        "they": "they" if two else ("she" if girl else "he"), "them": "them" if two else ("her" if girl else "him"),
        "we": "we" if two else "I",
        "he": "she" if girl else "he", "He": "She" if girl else "He",
        "him": "her" if girl else "him", "his": "her" if girl else "his",
        "o": full, "ao": _article(full), "ob": thing,
        "use": OBJECTS[thing][0], "used": OBJECTS[thing][1],
        "an": animal, "aan": _article(animal) if animal else "",
        "p": f" {where}" if where else "", "p2": f" {where}" if where else " outside",
    }


def _tell(rng: random.Random, slots: list, words: dict[str, str]) -> str:
    sentences = []
    for slot in slots:
        options = slot if isinstance(slot, list) else slot[0 if words["an"] else 1]
        if options:
            text = rng.choice(options).format(**words)
            # "a umbrella" and "a owl" come from templates that write the article out
            text = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)
            sentences.append(_capital(text))
    return " ".join(sentences)


def generate(rng: random.Random) -> Example:
    """One prompt and its story; deterministic given the state of ``rng``."""
    names = rng.sample(GIRLS + BOYS, 2 if rng.random() < 0.5 else 1)
    thing = rng.choice(list(OBJECTS))
    adjective = rng.choice(ADJECTIVES) if rng.random() < 0.65 else ""
    animal = rng.choice(ANIMALS) if rng.random() < 0.45 else ""
    place = rng.choice(list(PLACES)) if rng.random() < 0.45 else ""
    plot = _choose_plot(rng, thing, adjective)
    theme, helper, slots = PLOTS[plot]
    words = _words(rng, names, helper, thing, adjective, animal, place)
    cast = list(names)
    if animal:
        cast.append(words["aan"])
    cast.append(words["ao"])
    prompt = rng.choice(PHRASINGS).format(cast=_join(cast), p=words["p"])
    if rng.random() < 0.2:
        prompt += f" It should be about {theme}."
    must = [*names, thing] + [item for item in (adjective, animal, place) if item]
    key = "|".join([",".join(sorted(names)), adjective, thing, animal, place])
    return Example(NAME, plot, prompt, _tell(rng, slots, words), {"must": must, "plot": plot, "key": key})


def check(example: Example, text: str) -> Grade:
    """Right when everything asked for is named and the text is a finished story of 30 to 160 words."""
    story = text.strip()
    count = len(story.split())
    if not 30 <= count <= 160:
        return Grade(False, f"the story has {count} words, not 30 to 160")
    if not re.search(r'[.!?]"?$', story):
        return Grade(False, "the story does not end with a finished sentence")
    for item in example.facts["must"]:
        if not re.search(rf"\b{re.escape(item)}\b", story, re.IGNORECASE):
            return Grade(False, f"the story never mentions {item}")
    return Grade(True, f"a finished story of {count} words that names everything asked for")

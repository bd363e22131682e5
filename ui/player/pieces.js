// How the text of one token is shown. Pieces come from models and from other people's files: characters
// that are invisible or that reorder their surroundings are spelled out instead of being obeyed.

const HIDDEN = new RegExp(
  '[\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f\\u00ad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5' +
    '\\u180b-\\u180f\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufeff\\uffa0\\ufff0-\\ufffb' +
    '\\u{e0000}-\\u{e0fff}\\p{Co}\\p{Cs}]',
  'gu',
);
const SPECIAL = /^<[|/]?[\w-]+[|/]?>$/;

const spell = (character) => `⟨U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}⟩`;

/** For a cell: one line, in which even white space can be seen. */
export function cellText(piece) {
  return piece
    .replace(/\n/g, '⏎')
    .replace(/\t/g, '⇥')
    .replace(/\r/g, '␍')
    .replace(/ /g, '·')
    .replace(/\u00a0/g, '⍽')
    .replace(HIDDEN, spell);
}

/** For reading: line breaks, tabs and spaces act; everything hidden is spelled out. */
export function proseText(piece) {
  return piece.replace(/\r/g, '␍').replace(HIDDEN, spell);
}

/** Whether a piece is the written name of a special token, such as `<|im_end|>`. */
export function isSpecial(piece) {
  return SPECIAL.test(piece);
}

// Reads the columns that packed.py wrote. An array of numbers, null where there is none.

function unpack(column, count) {
  if (column.plain) return column.plain;
  const { low, bits, holes } = column, text = atob(column.text), make = KINDS[column.kind] || ((code) => code);
  const found = new Array(count);
  for (let i = 0, at = 0, rest = 0, held = 0; i < count; i++) {
    while (held < bits) { rest = rest * 256 + text.charCodeAt(at++); held += 8; }
    held -= bits;
    const whole = 2 ** held, code = Math.floor(rest / whole);
    rest -= code * whole;
    found[i] = holes && !code ? null : make(low + code - holes);
  }
  return found;
}

const bytes = new DataView(new ArrayBuffer(4));
const KINDS = {
  steps: (code) => code / 2 ** 23,
  single(code) {
    bytes.setUint32(0, code < 0 ? 2 ** 31 - code : code);
    return bytes.getFloat32(0);
  },
  // Three digits: 900 numbers to a power of ten.
  digits: (code) => (code === -360000 ? 0 : Number(`${code - 900 * Math.floor(code / 900) + 100}e${Math.floor(code / 900) - 2}`)),
};

// Returns the paths, and for each what it shares with the same module of other layers. The last column tells the text.
function unpackNames({ texts, layers }, columns, count) {
  const which = columns.at(-1);
  const joined = (i, layer) => texts[which[i]].reduce((path, part, n) => path + (n === layer ? "" : columns[n - 1][i]) + part);
  const paths = new Array(count), lines = new Array(count);
  for (let i = 0; i < count; i++) {
    const layer = layers[which[i]];
    paths[i] = joined(i, 0);
    lines[i] = layer === null ? null : `${which[i]} ${joined(i, layer + 1)}`;
  }
  return { paths, lines };
}

// The rules of s3lora select.py and rules.py, and what the other scripts of the page share.

// A number as `decimal` of values.py writes it: three digits, and no more than three decimals from 0.01 on.
const show = (value) => {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e7) return value.toExponential(2).replace(/\+(\d)$/, "+0$1");
  const wanted = size > 0 ? 1 - Math.floor(Math.log10(size / 10)) : 2;
  return value.toFixed(Math.min(Math.max(wanted, 0), size >= 0.01 ? 3 : 6));
};
// A number without decimals, of two that are as near the even one, as Python has it.
const whole = (value) => { const up = Math.floor(value + 0.5); return String(up - value === 0.5 && up % 2 ? up - 1 : up); };
const share = (part) => {
  const text = whole(100 * part);
  return (text === "0" || text === "100") && part !== 0 && part !== 1 ? `${(100 * part).toFixed(1)} %` : `${text} %`;
};

// What `rounded` of ties.py returns, by the same sums: a value without the digits that rounding may have changed.
const GRID = 1.5 * 2 ** 29, SPLIT = 2 ** 29 + 1;
const rounded = (value, free) => {
  if (free && Math.abs(value) < 1) return value + GRID - GRID;
  if (Math.abs(value) > 1e290) return value;
  const wide = value * SPLIT;
  return wide - (wide - value);
};

// Returns how many units, or which, a rule chooses: positions in the order of the index.
const RULES = {
  top: (amount, units) => first(Math.min(amount, units.length)),
  fraction: (amount, units) => first(Math.floor(fraction(amount) * units.length + 0.5)),
  threshold(amount, units, { inverse, free }) {
    const limit = rounded(amount, free);
    return positions(units, (unit) => (inverse ? unit.worth <= limit : unit.worth >= limit));
  },
  outlier(amount, units, { inverse }) {
    const kinds = new Map();
    for (const unit of units) {
      if (!kinds.has(unit.kind)) kinds.set(unit.kind, []);
      kinds.get(unit.kind).push(inverse ? -unit.worth : unit.worth);
    }
    const limits = new Map();
    for (const [kind, values] of kinds) {
      const middle = median(values);
      const spread = median(values.map((value) => Math.abs(value - middle)));
      if (values.length >= 5 && spread > 0) limits.set(kind, [middle, spread]);
    }
    return positions(units, (unit) => {
      if (!limits.has(unit.kind)) return false;
      const [middle, spread] = limits.get(unit.kind);
      return (0.6745 * ((inverse ? -unit.worth : unit.worth) - middle)) / spread > amount;
    });
  },
  gap(_, units) {
    let cut = 0, widest = 0;
    for (let i = 0; i < Math.floor(units.length / 2); i++) {
      const drop = Math.abs(units[i].worth - units[i + 1].worth);
      if (drop > widest) [cut, widest] = [i + 1, drop];
    }
    return first(cut);
  },
};
// A share as it is written in the command.
const fraction = (percent) => Number((percent / 100).toPrecision(12));
const first = (count) => Array.from({ length: count }, (_, i) => i);
const positions = (units, holds) => first(units.length).filter((i) => holds(units[i]));
const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b), half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
};

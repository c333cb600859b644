/** One measured number. */
export interface Figure {
  /** Stable name for scripts, `group.what.detail`. */
  readonly name: string;
  readonly text: string;
  readonly value: number;
  readonly unit: string;
  /** value / what it is compared with, measured in the same run. */
  readonly ratio?: number;
  readonly ratioTo?: string;
  /** Where the guest runs, or how the number has to be read. */
  readonly note?: string;
}

/** What a ratio is a ratio to. */
export interface Base {
  readonly value: number;
  readonly text: string;
}

/** A figure, and its ratio to `base` when one is given. */
export function figure(
  name: string,
  text: string,
  value: number,
  unit: string,
  more: { readonly base?: Base; readonly note?: string } = {},
): Figure {
  const { base, note } = more;
  return {
    ...{ name, text, value: round(value), unit },
    ...(base === undefined ? {} : { ratio: round(value / base.value), ratioTo: base.text }),
    ...(note === undefined ? {} : { note }),
  };
}

/** One line: name, value, unit, ratio and what it is a ratio to. */
export function figureLine(f: Figure): string {
  const ratio = f.ratio === undefined ? "" : `${String(f.ratio).padStart(8)} x ${f.ratioTo}`;
  const note = f.note === undefined ? "" : `  [${f.note}]`;
  return `  ${f.text.padEnd(58)} ${number(f.value).padStart(9)} ${f.unit.padEnd(7)}${ratio}${note}`.trimEnd();
}

export function number(value: number): string {
  return value >= 1000 ? Math.round(value).toLocaleString("en-US") : String(value);
}

/** Three significant digits, all digits before the point. */
function round(value: number): number {
  return Math.abs(value) >= 100 ? Math.round(value) : Number(value.toPrecision(3));
}

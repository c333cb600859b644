/** One way to log in that a server offers. */
export interface Challenge {
  /** Lower case: "bearer", "basic". */
  readonly scheme: string;
  readonly parameters: Readonly<Record<string, string>>;
}

/**
 * Reads WWW-Authenticate headers. Several challenges may be in one header, and commas are inside of quotes, too.
 * What cannot be read ends the list; there is no error. Source: RFC 9110 §11.6.1
 */
export function parseChallenges(header: string): readonly Challenge[] {
  const found: { scheme: string; parameters: Record<string, string> }[] = [];
  const token = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y;
  let at = 0;
  const skip = (characters: RegExp): void => {
    while (at < header.length && characters.test(header[at] as string)) at += 1;
  };
  const word = (): string => {
    token.lastIndex = at;
    const match = token.exec(header)?.[0] ?? "";
    at += match.length;
    return match;
  };
  for (;;) {
    skip(/[\s,]/);
    const name = word();
    if (name === "") return found;
    skip(/[ \t]/);
    if (header[at] !== "=") {
      found.push({ scheme: name.toLowerCase(), parameters: {} });
      continue;
    }
    at += 1;
    skip(/[ \t]/);
    const value = header[at] === '"' ? quoted() : word();
    const current = found.at(-1);
    if (current !== undefined && value !== undefined) current.parameters[name.toLowerCase()] = value;
    else return found;
  }

  function quoted(): string | undefined {
    let text = "";
    for (at += 1; at < header.length; at += 1) {
      const character = header[at] as string;
      if (character === '"') {
        at += 1;
        return text;
      }
      if (character === "\\") at += 1;
      text += header[at] ?? "";
    }
    return undefined;
  }
}

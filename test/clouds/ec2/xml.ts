/** A reply, with the element names as they are on the wire. An array becomes `<item>` elements; undefined is left out. */
export interface XmlObject {
  readonly [name: string]: XmlValue;
}
export type XmlValue = string | number | boolean | Date | undefined | XmlObject | readonly XmlValue[];

export const NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/";

export function renderReply(action: string, requestId: string, reply: XmlObject): string {
  const body = `<requestId>${requestId}</requestId>${renderFields(reply)}`;
  return `<?xml version="1.0" encoding="UTF-8"?>\n<${action}Response xmlns="${NAMESPACE}">${body}</${action}Response>`;
}

export function renderError(code: string, message: string, requestId: string): string {
  const error = `<Error><Code>${escapeXml(code)}</Code><Message>${escapeXml(message)}</Message></Error>`;
  return `<?xml version="1.0" encoding="UTF-8"?>\n<Response><Errors>${error}</Errors><RequestID>${requestId}</RequestID></Response>`;
}

export function escapeXml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}

function renderFields(object: XmlObject): string {
  return Object.entries(object)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `<${name}>${renderValue(value)}</${name}>`)
    .join("");
}

function renderValue(value: XmlValue): string {
  if (value === undefined) return "";
  if (value instanceof Date) return value.toISOString();
  if (Array.isArray(value)) return value.map((item) => `<item>${renderValue(item)}</item>`).join("");
  if (typeof value === "object") return renderFields(value as XmlObject);
  return escapeXml(String(value));
}

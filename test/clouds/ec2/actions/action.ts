import type { Ec2Account } from "../account.ts";
import { ApiError } from "../api-error.ts";
import type { Params } from "../query.ts";
import type { XmlObject } from "../xml.ts";

export interface ActionContext {
  readonly account: Ec2Account;
  readonly params: Params;
  /** Ends the request here when it is a dry run: after all checks, before the effect. @throws ApiError DryRunOperation */
  endDryRun(): void;
}

/** One API action: its reply, or an ApiError. */
export type Action = (context: ActionContext) => XmlObject | Promise<XmlObject>;

/** @throws ApiError UnauthorizedOperation */
export function authorize(account: Ec2Account, action: string): void {
  if (!account.knobs.denied.has(action)) return;
  const who = `arn:aws:iam::${account.ownerId}:user/test`;
  throw new ApiError(
    "UnauthorizedOperation",
    `You are not authorized to perform this operation. User: ${who} is not authorized to perform: ec2:${action} because no identity-based policy allows the ec2:${action} action`,
  );
}

/** @throws ApiError `<code>.NotFound` naming what is missing; `<code>.Malformed` for what cannot be such an id */
export function refuseMissing(
  ids: readonly string[],
  known: ReadonlySet<string>,
  kind: { readonly code: string; readonly noun: string; readonly prefix: string },
): void {
  const malformed = ids.find((id) => !new RegExp(`^${kind.prefix}-[0-9a-f]{8,17}$`).test(id));
  if (malformed !== undefined) throw new ApiError(`${kind.code}.Malformed`, `Invalid id: "${malformed}"`);
  const missing = ids.filter((id) => !known.has(id));
  if (missing.length === 0) return;
  const [one] = missing;
  const message =
    missing.length === 1
      ? `The ${kind.noun} ID '${one}' does not exist`
      : `The ${kind.noun} IDs '${missing.join(", ")}' do not exist`;
  throw new ApiError(`${kind.code}.NotFound`, message);
}

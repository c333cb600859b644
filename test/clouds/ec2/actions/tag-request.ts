import { ApiError } from "../api-error.ts";
import type { Params } from "../query.ts";

/** Tags that a request wants on what it makes, by kind. @throws ApiError for a kind that the action does not make */
export function readTagSpecifications(params: Params, taggable: ReadonlySet<string>): Map<string, Map<string, string>> {
  const all = new Map<string, Map<string, string>>();
  for (const specification of params.list("TagSpecification")) {
    const kind = specification.need("ResourceType");
    if (!taggable.has(kind))
      throw new ApiError(
        "InvalidParameterValue",
        `'${kind}' is not a valid taggable resource type for this operation.`,
      );
    if (all.has(kind))
      throw new ApiError("InvalidParameterValue", `Tag specification resource type '${kind}' is given twice`);
    all.set(kind, readTags(specification));
  }
  return all;
}

/** @throws ApiError for keys and values that no resource can have */
export function readTags(params: Params): Map<string, string> {
  const tags = new Map<string, string>();
  for (const tag of params.list("Tag")) {
    const [key, value] = [tag.text("Key") ?? "", tag.text("Value") ?? ""];
    if (key === "" || key.length > 127)
      throw new ApiError("InvalidParameterValue", "Tag key must be between 1 and 127 characters");
    if (key.toLowerCase().startsWith("aws:"))
      throw new ApiError("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use");
    if (value.length > 255)
      throw new ApiError("InvalidParameterValue", "Tag value exceeds the maximum length of 255 characters");
    if (tags.has(key)) throw new ApiError("InvalidParameterValue", `Duplicate tag key '${key}' specified.`);
    tags.set(key, value);
  }
  if (tags.size > 50) throw new ApiError("TagLimitExceeded", "The maximum number of tags, 50, has been reached.");
  return tags;
}

/** Codes of Node's network code for "nothing came back": the request may have had its effect. */
export const NETWORK_ERRORS: readonly string[] = [
  ...["ECONNRESET", "ECONNREFUSED", "ECONNABORTED", "EPIPE", "ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH"],
  ...["ENOTFOUND", "EAI_AGAIN", "ERR_STREAM_PREMATURE_CLOSE"],
];

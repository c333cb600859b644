export { MAX_AUTH_BYTES, type PullSecret, renderAuthJson } from "./auth-json.ts";
export { type GuestDisks, NO_DISKS } from "./guest-disks.ts";
export { checkInitdata, decodeInitdata, encodeInitdata } from "./initdata.ts";
export { renderApfJson, renderStockUserData, type StockUserData } from "./stock-user-data.ts";
export { CA_PATH, parseUserData, renderUserData, type UserData } from "./user-data.ts";

export { CA_PATH, parseUserData, renderUserData, type UserData } from "./user-data.ts";

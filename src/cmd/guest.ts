import { runGuest } from "../guest/boot/index.ts";

await runGuest();

export { BullmqQueue, type BullmqQueueDeps } from "./bullmq-queue.ts";

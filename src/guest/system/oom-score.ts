import { writeFileSync } from "node:fs";

const OOM_SCORE = "/proc/self/oom_score_adj";
let ownOomScore = 0;

/** Protects this process from the OOM killer, and only this one: children start with 0. */
export function protectFromOom(): void {
  ownOomScore = -1000;
  writeFileSync(OOM_SCORE, String(ownOomScore));
}

/** Runs `start`, which forks, with the score that children shall have. */
export function withoutOomProtection<T>(start: () => T): T {
  if (ownOomScore === 0) return start();
  writeFileSync(OOM_SCORE, "0"); // inherited at fork; the runtime would hand it on to processes started by exec
  try {
    return start();
  } finally {
    writeFileSync(OOM_SCORE, String(ownOomScore));
  }
}

/** Score of another process; one that has exited meanwhile needs none. */
export function setOomScore(pid: number, score: number): void {
  if (score === 0) return;
  try {
    writeFileSync(`/proc/${pid}/oom_score_adj`, String(score));
  } catch (e) {
    const code = (e as NodeJS.ErrnoException).code;
    if (code !== "ENOENT" && code !== "ESRCH") throw e;
  }
}

import { writeFileSync } from "node:fs";

const OOM_SCORE = "/proc/self/oom_score_adj";
let ownOomScore = 0;

/** Protects this process from the OOM killer, and only this one: children start with 0. */
export function protectFromOom(): void {
  ownOomScore = -1000;
  writeFileSync(OOM_SCORE, String(ownOomScore));
}

/** Runs `start`, which forks, while this process has the score that the child shall inherit. */
export function withOomScore<T>(score: number, start: () => T): T {
  if (ownOomScore === score) return start();
  writeFileSync(OOM_SCORE, String(score));
  try {
    return start();
  } finally {
    writeFileSync(OOM_SCORE, String(ownOomScore));
  }
}

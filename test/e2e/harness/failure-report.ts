/** Gives what can be seen of something that runs. Must end by itself, and soon; it may fail. */
type Report = () => Promise<string>;

const reports = new Set<Report>();
/** For all reports together, ms. */
const REPORT_MS = 30_000;

/** Has a running world's state told whenever a test of this file fails or a command takes too long. @returns undo */
export function reportOnFailure(report: Report): () => void {
  reports.add(report);
  return () => {
    reports.delete(report);
  };
}

let reporting = false;

/** Whether anything runs that could be told of. */
export function hasReports(): boolean {
  return reports.size > 0;
}

/** What is to be seen of all that runs now. Never rejects. */
export async function currentState(): Promise<string> {
  if (reporting) return ""; // a command of a report has run out of time, which is told there
  reporting = true;
  try {
    return await readAll();
  } finally {
    reporting = false;
  }
}

async function readAll(): Promise<string> {
  const texts = [...reports].map((report) => report().catch((e: unknown) => `no report: ${String(e)}`));
  const { promise, resolve } = Promise.withResolvers<string>();
  const timer = setTimeout(() => resolve("(the state of the test's world could not be read in time)"), REPORT_MS);
  void Promise.all(texts).then((all) => resolve(all.join("\n")));
  const text = await promise;
  clearTimeout(timer);
  return text;
}

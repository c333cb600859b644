/** Version of this build; the one place that says it. Kept equal to package.json by a test. */
export const VERSION = "0.1.0";

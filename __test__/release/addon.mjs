// Stands where the release's modules stand for its suites.

export * from "../../index.js";

// The test files that take longest, each longer than most others together. The quick set has none of them.

/** Their names, longest first: that is the order in which they start. */
export const LONGEST_SUITES = [
  "release/beside",
  "packaging/install",
  "clients/ssh",
  "clients/disturbed",
  "large",
  "git-peer",
  "git-random",
  "clients/e2b",
  "loading/bundlers",
  "bench",
  "clients/bridge",
  "clients/daytona",
  "one-hour",
  "clients/cloudflare",
  "threads",
  "clients/docker",
  "clients/conformance",
  "boundary",
  "volumes/folding",
  "volumes/folding-plain",
  "volumes/linked",
  "volumes/disk",
];

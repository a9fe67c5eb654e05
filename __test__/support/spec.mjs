/** A complete spec. */
export const specFor = (remoteCwd) => ({
  transport: "sandbox",
  provider: "local",
  sandboxId: "sandbox-1",
  remoteCwd,
  timeoutMs: 12_345,
  apiKey: null,
});

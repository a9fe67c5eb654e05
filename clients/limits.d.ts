/** Limits that every ready-made client has. */
export interface TransferLimits {
  /**
   * How long one call may take in all, retries included, in milliseconds; a command has its own `timeoutMs`
   * instead. Default: 3,600,000 (one hour).
   */
  deadlineMs?: number;
  /**
   * The largest file that `readFile` accepts, in bytes. A larger one rejects with
   * `ERR_SANDBOX_DOWNLOAD_TOO_LARGE` before memory is taken for it, where its size can be asked for, and as
   * soon as more has arrived otherwise. Default: 4,294,967,296 (4 GiB, the most that one buffer holds on Node
   * 20).
   */
  maxDownloadBytes?: number;
}

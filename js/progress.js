"use strict";

/** @import { RuntimeProgressSink, RuntimeStatusPhase, RuntimeStatusSink } from "../index.js" */

const STEP_PERCENT = 10;
const INTERVAL_MS = 2000;

/**
 * Calls a caller's listener; what it throws is its own affair and never fails a run.
 *
 * @template T
 * @param {((value: T) => unknown) | undefined} listener
 * @param {T} value
 */
async function tell(listener, value) {
  try {
    await listener?.(value);
  } catch {
    // As said above.
  }
}

/**
 * The progress of one transfer as lines in the format of Paperclip's logs. A line comes with each tenth of the way,
 * or after two seconds without one, and always at the end. `undefined` where nobody listens.
 *
 * @param {object} transfer
 * @param {"Syncing" | "Restoring"} transfer.phase
 * @param {string} transfer.label
 * @param {"to" | "from"} transfer.direction
 * @param {RuntimeProgressSink} [transfer.onLine]
 * @param {RuntimeStatusSink} [transfer.onStatus]
 * @param {RuntimeStatusPhase} transfer.statusPhase
 */
function transferProgress({ phase, label, direction, onLine, onStatus, statusPhase }) {
  if (!onLine && !onStatus) return undefined;
  const prefix = `${phase} ${label} ${direction} sandbox`;
  const megabytes = (/** @type {number} */ bytes) => (Math.max(0, bytes) / (1024 * 1024)).toFixed(1);
  let lastStep = -1;
  let lastTime = -Infinity;
  let ended = false;

  /**
   * @param {number} done
   * @param {number} total 0 where it is not known
   */
  const emit = async (done, total) => {
    let text = `${prefix}: ${megabytes(done)} MB`;
    if (total > 0) {
      const percent = Math.min(100, Math.max(0, Math.round((done / total) * 100)));
      text = `${prefix}: ${percent}% (${megabytes(done)}/${megabytes(total)} MB)`;
    }
    await tell(onLine, `[paperclip] ${text}\n`);
    await tell(onStatus, { phase: statusPhase, message: text });
  };

  return {
    options: {
      /**
       * @param {number} done
       * @param {number | null} of
       */
      onProgress: async (done, of) => {
        const total = of ?? 0;
        if (ended || !Number.isFinite(done)) return;
        const step = total > 0 ? Math.floor(((done / total) * 100) / STEP_PERCENT) : lastStep;
        const now = Date.now();
        if (step <= lastStep && now - lastTime < INTERVAL_MS) return;
        lastStep = step;
        lastTime = now;
        ended = total > 0 && done >= total;
        await emit(done, total);
      },
    },
    /**
     * The last line, where the client has not caused it by its own count.
     *
     * @param {number} total
     */
    async finish(total) {
      if (ended) return;
      ended = true;
      await emit(total, total);
    },
  };
}

module.exports = { tell, transferProgress };

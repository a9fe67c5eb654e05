"use strict";

// Progress messages of a run: its steps, and the lines of a transfer, with the texts of adapter-utils' releases.

const { tell } = require("../js/progress.js");

/** @import * as own from "./index.js" */

const STEP_PERCENT = 10;
const INTERVAL_MS = 2000;
const MEGABYTE = 1024 * 1024;

/** @param {number} bytes */
const megabytes = (bytes) => (Math.max(0, bytes) / MEGABYTE).toFixed(1);

/**
 * @param {number} done
 * @param {number | null} total
 */
function amount(done, total) {
  if (!total) return `${megabytes(done)} MB`;
  const percent = Math.min(100, Math.max(0, Math.round((done / total) * 100)));
  return `${percent}% (${megabytes(done)}/${megabytes(total)} MB)`;
}

/**
 * The lines of one transfer: one with each tenth of the way, or after two seconds without one, and one at the end.
 *
 * @param {object} transfer
 * @param {string} transfer.what Such as `Syncing workspace to`.
 * @param {own.RuntimeStatusPhase} transfer.phase
 * @param {own.RuntimeProgressSink} [transfer.onLine]
 * @param {own.RuntimeStatusSink} [transfer.onStatus]
 */
function transferProgress({ what, phase, onLine, onStatus }) {
  let lastStep = -1;
  let lastTime = -Infinity;
  let ended = false;
  /**
   * @param {number} done
   * @param {number | null} total
   */
  const emit = async (done, total) => {
    const text = `${what} environment: ${amount(done, total)}`;
    await onLine?.(`[paperclip] ${text}\n`);
    await tell(onStatus, { phase, message: text });
  };
  const isHeard = Boolean(onLine ?? onStatus);
  return {
    /** The options for a client's method; `undefined` where there is no listener. */
    options: isHeard
      ? {
          /**
           * @param {number} done
           * @param {number | null} total
           */
          onProgress: async (done, total) => {
            if (ended) return;
            const step = total ? Math.floor(((done / total) * 100) / STEP_PERCENT) : lastStep;
            const now = Date.now();
            if (step <= lastStep && now - lastTime < INTERVAL_MS) return;
            lastStep = step;
            lastTime = now;
            ended = Boolean(total) && done >= Number(total);
            await emit(done, total);
          },
        }
      : undefined,
    /** @param {number} bytes */
    finish: async (bytes) => {
      if (ended || !isHeard) return;
      ended = true;
      await emit(bytes, bytes);
    },
  };
}

/**
 * Reports a step. A listener that fails never fails the run.
 *
 * @param {own.RuntimeStatusSink | undefined} onStatus
 * @param {own.RuntimeStatusPhase} phase
 * @param {string} message
 */
const status = (onStatus, phase, message) => tell(onStatus, { phase, message });

module.exports = { status, transferProgress };

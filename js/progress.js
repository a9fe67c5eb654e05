"use strict";

/** @import { RuntimeProgressSink, RuntimeStatusPhase, RuntimeStatusSink } from "../index.js" */

const STEP_PERCENT = 10;
const INTERVAL_MS = 2000;

/**
 * Calls a caller's listener. What it throws is ignored: a listener never fails a run.
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
 * The progress of one archive as lines in the format of Paperclip's logs, with the rate and the time left where the total
 * is known and some time has passed. A line comes with each tenth of the bytes, or after two seconds without one, and always
 * at the end. `undefined` where there is no listener.
 *
 * An archive may travel in parts, several at once, and compressed. What is counted is the archive's own bytes.
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
  const started = Date.now();
  /**
   * The bytes that came or went of each part.
   *
   * @type {Map<number, number>}
   */
  const parts = new Map();
  let lastStep = -1;
  let lastTime = -Infinity;
  let ended = false;

  /**
   * @param {number} done
   * @param {number} total 0 where it is not known
   */
  const emit = async (done, total) => {
    const text = `${prefix}: ${progressText(done, total, Date.now() - started)}`;
    await tell(onLine, `[paperclip] ${text}\n`);
    await tell(onStatus, { phase: statusPhase, message: text });
  };

  return {
    /**
     * One part of the archive.
     *
     * @param {{ number: number, before: number, size: number, total: number }} part
     * @param {number} wire How many bytes of it travel; 0 where that is not known.
     */
    part: (part, wire) => {
      // The first part of a download was read before it was known that there are more. One of an upload may still travel.
      if (direction === "from" && part.number === 1 && part.before > 0) parts.set(0, part.before);
      if (ended && part.number > 0) ended = false;
      // What travels is the archive itself, so the client's own count is the archive's.
      const isPlain = part.size === part.total && !(wire > 0 && wire < part.size);
      // An attempt that repeats a failed one says nothing until it is further.
      const reached = isPlain ? (parts.get(part.number) ?? 0) : 0;
      /** @param {number} bytes */
      const sum = (bytes) => {
        parts.set(part.number, Math.max(bytes, parts.get(part.number) ?? 0));
        return [...parts.values()].reduce((whole, some) => whole + some, 0);
      };
      return {
        options: {
          /**
           * @param {number} done
           * @param {number | null} of
           */
          onProgress: async (done, of) => {
            if (ended || !Number.isFinite(done)) return;
            const travels = of || wire;
            const all = isPlain
              ? Math.max(done, reached)
              : sum(travels ? (Math.min(done, travels) / travels) * part.size : 0);
            const total = isPlain ? (of ?? 0) : part.total;
            if (isPlain) sum(done);
            const step = total > 0 ? Math.floor(((all / total) * 100) / STEP_PERCENT) : lastStep;
            const now = Date.now();
            if (step <= lastStep && now - lastTime < INTERVAL_MS) return;
            lastStep = step;
            lastTime = now;
            ended = total > 0 && all >= total;
            await emit(all, total);
          },
        },
        /**
         * The last line, where the client has not caused it by its own count.
         *
         * @param {number} bytes How many travelled.
         */
        finish: async (bytes) => {
          const total = isPlain ? bytes : part.total;
          const all = sum(isPlain ? bytes : part.size);
          if (ended || all < total) return;
          ended = true;
          await emit(total, total);
        },
      };
    },
  };
}

/**
 * The steps of a run in which nothing is transferred, by the names that the binding has for them.
 *
 * @type {Record<string, { phase: RuntimeStatusPhase, text: (label: string) => string }>}
 */
const STEPS = {
  compare: { phase: "config_sync", text: (label) => `Looking for changes of ${label} in sandbox` },
  pack: { phase: "config_sync", text: (label) => `Packing ${label} for sandbox` },
  extract: { phase: "config_sync", text: (label) => `Extracting ${label} in sandbox` },
  collect: { phase: "restore", text: (label) => `Packing ${label} in sandbox` },
  check: { phase: "restore", text: (label) => `Checking ${label} from sandbox` },
  apply: { phase: "restore", text: (label) => `Applying changes of ${label} from sandbox` },
};

/**
 * Reports a step that takes long. The binding asks for this every five seconds, and never for a shorter step.
 *
 * @param {object} step
 * @param {string} step.name
 * @param {string} step.label
 * @param {number} step.bytes 0 where that is not known
 * @param {number} step.tookMs
 * @param {{ onLine?: RuntimeProgressSink, onStatus?: RuntimeStatusSink }} listeners
 */
async function tellStep({ name, label, bytes, tookMs }, { onLine, onStatus }) {
  const { phase, text } = /** @type {typeof STEPS[string]} */ (STEPS[name]);
  const amount = bytes > 0 ? ` (${megabytes(bytes)} MB)` : "";
  const message = `${text(label)}${amount}: ${Math.round(tookMs / 1000)} s so far`;
  await tell(onLine, `[paperclip] ${message}\n`);
  await tell(onStatus, { phase, message });
}

/** @param {number} bytes */
function megabytes(bytes) {
  return (Math.max(0, bytes) / (1024 * 1024)).toFixed(1);
}

/**
 * @param {number} done
 * @param {number} total 0 where it is not known
 * @param {number} elapsedMs
 */
function progressText(done, total, elapsedMs) {
  // In less than a second, a rate means nothing.
  const rate = elapsedMs >= 1000 ? done / (elapsedMs / 1000) : 0;
  if (total <= 0) return `${megabytes(done)} MB`;
  const percent = Math.min(100, Math.max(0, Math.round((done / total) * 100)));
  const amount = `${percent}% (${megabytes(done)}/${megabytes(total)} MB)`;
  if (rate <= 0) return amount;
  const left = done < total ? `, ${Math.ceil((total - done) / rate)} s left` : "";
  return `${amount}, ${megabytes(rate)} MB/s${left}`;
}

module.exports = { progressText, tell, tellStep, transferProgress };

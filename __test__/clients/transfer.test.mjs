// How the clients put a download together.

import { describe, expect, it } from "vitest";
import transfer from "../../clients/transfer.js";
import { distinct } from "./support.mjs";

const { collected, onlyForward, pieces, streamOf } = transfer;

async function* chunksOf(bytes, size) {
  for (let start = 0; start < bytes.byteLength; start += size) {
    yield new Uint8Array(bytes, start, Math.min(size, bytes.byteLength - start));
  }
}

const limits = { remotePath: "/file", maxDownloadBytes: 1_000_000_000 };

describe("collecting a download", () => {
  it.each([null, 10_000_001])("keeps every byte where the announced size is %j", async (total) => {
    const bytes = distinct(10_000_001);
    const whole = await collected(chunksOf(bytes, 65_536), { ...limits, total });
    expect(whole.equals(Buffer.from(bytes))).toBe(true);
    expect(whole.buffer.byteLength).toBe(bytes.byteLength);
  });

  it("fills one buffer of the announced size, and keeps no chunk", async () => {
    // Were the chunks kept, these could not all be the same piece of memory.
    const piece = new Uint8Array(1_000);
    async function* reused() {
      for (let index = 0; index < 200; index += 1) yield piece.fill(index);
    }
    const whole = await collected(reused(), { ...limits, total: 200_000 });
    expect(whole.every((byte, index) => byte === Math.floor(index / 1_000))).toBe(true);
  });

  it.each([
    [9, 10],
    [11, 10],
    [0, 1],
  ])("fails where %d of %d bytes arrive", async (length, total) => {
    await expect(collected(chunksOf(distinct(length), 4), { ...limits, total })).rejects.toMatchObject({
      code: "ERR_SANDBOX_TRANSFER_INCOMPLETE",
    });
  });

  it("takes no memory for what is announced beyond the limit, and stops as soon as more has arrived", async () => {
    const tooLarge = { code: "ERR_SANDBOX_DOWNLOAD_TOO_LARGE" };
    const small = { ...limits, maxDownloadBytes: 100 };
    const announced = collected(chunksOf(distinct(0), 1), { ...small, total: Number.MAX_SAFE_INTEGER });
    await expect(announced).rejects.toMatchObject(tooLarge);
    let taken = 0;
    async function* endless() {
      for (;;) {
        taken += 1;
        yield new Uint8Array(10);
      }
    }
    await expect(collected(endless(), { ...small, total: null })).rejects.toMatchObject(tooLarge);
    expect(taken).toBe(11);
  });

  it("lets other work have its turn while it joins chunks of unknown number", async () => {
    let turns = 0;
    const counting = setInterval(() => (turns += 1), 0);
    await collected(chunksOf(new ArrayBuffer(100_000_000), 1_000_000), { ...limits, total: null });
    clearInterval(counting);
    expect(turns).toBeGreaterThan(5);
  });
});

describe("sending in pieces", () => {
  it("shares the memory of what is sent", async () => {
    const bytes = distinct(1_000_000);
    for await (const piece of pieces(bytes)) expect(piece.buffer).toBe(bytes);
  });

  it("takes nothing from a stream before it is asked for", async () => {
    const reports = [];
    const stream = streamOf(distinct(1_000_000), (done) => void reports.push(done), undefined);
    const reader = stream.getReader();
    await reader.read();
    await new Promise(setImmediate);
    expect(reports).toEqual([]);
    await reader.cancel();
  });

  it("reports no figure twice and none that is lower than the one before", async () => {
    const reports = [];
    const forward = onlyForward((done) => void reports.push(done));
    for (const done of [1, 2, 1, 2, 3]) await forward(done, 3);
    expect(reports).toEqual([1, 2, 3]);
    expect(onlyForward(undefined)).toBeUndefined();
  });
});

it("all transfers together let other work run, however many bytes there are to read and to send", async () => {
  const bytes = new ArrayBuffer(60_000_000);
  let turns = 0;
  let goesOn = true;
  const count = () => {
    turns += 1;
    if (goesOn) setImmediate(count);
  };
  setImmediate(count);
  async function* chunks() {
    for (let start = 0; start < bytes.byteLength; start += 60_000) yield new Uint8Array(bytes, start, 60_000);
  }
  const limits = { total: bytes.byteLength, remotePath: "/file", maxDownloadBytes: bytes.byteLength };
  const busy = async function* () {
    for await (const piece of pieces(bytes, undefined, 60_000)) {
      Buffer.from(piece).fill(1);
      yield piece;
    }
  };
  await Promise.all([collected(chunks(), limits), collected(chunks(), limits), collected(busy(), limits)]);
  goesOn = false;
  expect(turns).toBeGreaterThan(3);
});

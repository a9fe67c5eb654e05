"use strict";

const { native } = require("../binding.js");
const { fromNative } = require("./errors.js");

/**
 * Lets the event loop run once. The binding's own thread wakes it, because JavaScript's timers may be faked (jest, vitest) or
 * missing (jsdom).
 */
async function nextTurn() {
  try {
    await native().nextTurn();
  } catch (error) {
    throw fromNative(error);
  }
}

module.exports = { nextTurn };

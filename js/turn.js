"use strict";

const { native } = require("../binding.js");
const { fromNative } = require("./errors.js");

/**
 * Lets the event loop go on with all else. It comes from the binding's own thread: the timers of JavaScript may be
 * faked (jest, vitest) or not there at all (jsdom).
 */
async function nextTurn() {
  try {
    await native().nextTurn();
  } catch (error) {
    throw fromNative(error);
  }
}

module.exports = { nextTurn };

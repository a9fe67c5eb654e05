"use strict";

/** A failure whose message is enough: shown without a stack trace. */
class Explained extends Error {}

/** Wrong arguments of the program. */
class WrongUse extends Explained {}

module.exports = { Explained, WrongUse };

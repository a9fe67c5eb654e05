"use strict";

/** A failure that its message explains: shown without a stack. */
class Explained extends Error {}

/** A call of the program that it cannot make sense of. */
class WrongUse extends Explained {}

module.exports = { Explained, WrongUse };

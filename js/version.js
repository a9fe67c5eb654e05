"use strict";

/** This package's version. It is written out, so that it stays with the code in a bundle too. */
module.exports.version = "0.1.0";

// node exits-midway.mjs FOLDER DELAY: has everything under way, and exits with code 7 after DELAY milliseconds.

import { everything } from "./everything.mjs";

const [folder, delay] = process.argv.slice(2);

everything(folder);
setTimeout(() => process.exit(7), Number(delay));

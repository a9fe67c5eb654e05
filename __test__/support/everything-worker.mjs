// A worker thread with everything under way. It says so once.

import { parentPort, workerData } from "node:worker_threads";
import { everything } from "./everything.mjs";

everything(workerData);
parentPort.postMessage("under way");

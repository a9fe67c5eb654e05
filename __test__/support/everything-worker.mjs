// A worker thread that makes every kind of call, and reports once that all are running.

import { parentPort, workerData } from "node:worker_threads";
import { everything } from "./everything.mjs";

everything(workerData);
parentPort.postMessage("under way");

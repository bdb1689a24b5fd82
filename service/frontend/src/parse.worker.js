import { answered } from "./parse.js";

self.onmessage = ({ data }) => self.postMessage(answered(data));

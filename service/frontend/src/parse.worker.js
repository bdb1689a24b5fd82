import { answering } from "./parse.js";

const answered = answering();
self.onmessage = ({ data }) => self.postMessage(answered(data));

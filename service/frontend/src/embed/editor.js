import flow from "@xyflow/svelte/dist/style.css?inline";
import own from "../editor.css?inline";

export { default } from "./EmbeddedEditor.svelte";
export const styles = [flow, own];

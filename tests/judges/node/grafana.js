// Holds the dashboard against the types that Grafana publishes of itself: what is missing, misspelt or unknown is told.

const fs = require("node:fs");
const path = require("node:path");
const ts = require("typescript");

const DASHBOARD = path.join(__dirname, "../../../deploy/grafana/dashboards/tollgate.json");
// A file that is there for the compiler alone, so that imports are found from here.
const CHECKED = path.join(__dirname, "dashboard.ts");
const OPTIONS = {
  strict: true,
  noEmit: true,
  skipLibCheck: true,
  types: [],
  target: ts.ScriptTarget.ES2022,
  module: ts.ModuleKind.NodeNext,
  moduleResolution: ts.ModuleResolutionKind.NodeNext,
};

/** What is wrong with a dashboard. */
function faults(json) {
  const text = `import type { Shown } from "./grafana";\nexport const dashboard: Shown = ${json};\n`;
  const host = ts.createCompilerHost(OPTIONS);
  const { fileExists, getSourceFile } = host;
  host.fileExists = (name) => name === CHECKED || fileExists(name);
  host.getSourceFile = (name, version, ...rest) =>
    name === CHECKED ? ts.createSourceFile(name, text, version) : getSourceFile(name, version, ...rest);
  const found = ts.getPreEmitDiagnostics(ts.createProgram([CHECKED], OPTIONS, host));
  return found.map((fault) => ts.flattenDiagnosticMessageText(fault.messageText, "\n").slice(0, 500));
}

const json = fs.readFileSync(DASHBOARD, "utf8");
const wrong = faults(json);
// A judge that lets everything pass would be none.
const caught = ['"unit"', '"showLegend"', '"expr"'].filter((name) => faults(json.replace(name, '"x"')).length > 0);
console.log(`${wrong.length} faults; ${caught.length} of 3 planted ones found`);
wrong.forEach((fault) => console.log(fault));
process.exit(wrong.length === 0 && caught.length === 3 ? 0 : 1);

// Writes the dashboards as JSON into the folder that it is given.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { autoscalerPerformance } from './autoscaler-performance.js';
import { clusterOverview } from './cluster-overview.js';
import { costTracking } from './cost-tracking.js';

const [folder] = process.argv.slice(2);
if (folder === undefined) {
  console.error('usage: main.js FOLDER');
  process.exit(2);
}
const dashboards = { 'cluster-overview': clusterOverview, 'autoscaler-performance': autoscalerPerformance, 'cost-tracking': costTracking };
for (const [name, dashboard] of Object.entries(dashboards)) {
  writeFileSync(join(folder, `${name}.json`), `${JSON.stringify(dashboard.build(), null, 2)}\n`);
}

// What is shipped sets bounds to what alerts can see: the example configuration, the unit, the buckets of histograms.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { HERE } from './expressions.js';

const UNITS: Record<string, number> = { s: 1, sec: 1, m: 60, min: 60, h: 3600, d: 86_400 };

/** The seconds of a span like `15m`. */
export function seconds(span: string): number {
  const [, number, unit = ''] = /^(\d+)([a-z]+)$/.exec(span) ?? [];
  const factor = UNITS[unit];
  if (number === undefined || factor === undefined) {
    throw new Error(`\`${span}\` is no span; right would be one like \`15m\``);
  }
  return Number(number) * factor;
}

/** What the pattern's group finds in a file of the repository. */
function found(file: string, pattern: RegExp): string {
  const [, value] = pattern.exec(readFileSync(join(HERE, '..', file), 'utf8')) ?? [];
  if (value === undefined) {
    throw new Error(`${file} has nothing like ${pattern}`);
  }
  return value;
}

/** A span of the example configuration, by its section and key, in seconds. */
function configured(section: string, key: string): number {
  return seconds(found('config/node-fleet.toml', new RegExp(`\\n\\[${section}\\]\\n(?:(?!\\[).*\\n)*?${key} = "(\\w+)"`)));
}

function unit(key: string): string {
  return found('systemd/node-fleet.service', new RegExp(`\\n${key}=(\\w+)`));
}

/** The last bound of a histogram's buckets: no quantile of it is greater. */
function lastBucket(constant: string): number {
  const bounds = found('src/observability/telemetry.rs', new RegExp(`const ${constant}: \\[f64; \\d+\\] = \\[([^\\]]*)\\]`));
  return Math.max(...bounds.split(',').map(Number));
}

/** How often something that takes so long can end within a window, one after the other. */
function within(window: string, each: number): number {
  return 1 + Math.floor(seconds(window) / each);
}

/** The most that each alert with a threshold can ever see. */
export function greatest(): Record<string, number> {
  const joins = configured('operations', 'join_timeout');
  // As src/http/health.rs has it, then the unit.
  const hangs = 3 * configured('evaluation', 'interval') + seconds(unit('WatchdogSec')) + seconds(unit('RestartSec'));
  return {
    NodeFleetTwoLeaders: Infinity,
    NodeFleetRestarts: within('30m', hangs) - 1,
    NodeFleetMemory: Number(unit('MemoryHigh').replace('M', '')) * 1024 ** 2,
    // Launches that never join, one after the other.
    NodeFleetFailures: within('15m', joins),
    // Drains of one node, which rests in between.
    NodeFleetDrainRolledBack: within('1h', configured('operations', 'drain_timeout') + configured('rest', 'node')),
    NodeFleetHighCpu: 1,
    NodeFleetHighMemory: 1,
    NodeFleetSlowJoins: Math.min(joins, lastBucket('JOINS')),
    NodeFleetSlowPurchases: lastBucket('REACTIONS'),
    NodeFleetInterruptions: Infinity,
    NodeFleetSlowCordons: lastBucket('REACTIONS'),
  };
}

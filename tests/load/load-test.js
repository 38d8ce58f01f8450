// Users who come within five minutes, stay, and leave again: does the fleet follow them?
//
//   k6 run -e TARGET=http://shop.example/ tests/load/load-test.js
//
// TARGET  what each user asks for, again and again
// USERS   how many there are at the height (100)
// SPEED   how many times as fast as that it all goes by (1)
import http from 'k6/http';
import { check, sleep } from 'k6';

const speed = Number(__ENV.SPEED || 1);
const users = Number(__ENV.USERS || 100);
if (!__ENV.TARGET || !(speed > 0) || !(users >= 1)) {
    throw new Error(`TARGET must be an address, SPEED above 0, USERS at least 1: ${JSON.stringify(__ENV)}`);
}

const minutes = (count) => `${Math.round((count * 60_000) / speed)}ms`;

export const options = {
    scenarios: {
        users: {
            executor: 'ramping-vus',
            startVUs: 0,
            stages: [
                { duration: minutes(5), target: users },
                { duration: minutes(10), target: users },
                { duration: minutes(1), target: 0 },
            ],
            gracefulRampDown: minutes(1),
        },
    },
    thresholds: { checks: ['rate>0.99'] },
};

export default function () {
    const answer = http.get(__ENV.TARGET);
    check(answer, { 'is served': (it) => it.status === 200 });
    sleep(0.1);
}

/** The VPC: two zones, public subnets with NAT, private ones for nodes, and who may talk to whom. */

import * as aws from "@pulumi/aws";
import * as pulumi from "@pulumi/pulumi";
import { serverName, tags, zoneName } from "./names";
import { flowLogTrust, flowLogWriter } from "./policies";
import type { Settings } from "./settings";

export const VPC_CIDR = "10.0.0.0/16";
/** Its zones, with the networks of their public and private subnets. */
const ZONES = [
    { public: "10.0.0.0/20", private: "10.0.64.0/18" },
    { public: "10.0.16.0/20", private: "10.0.128.0/18" },
] as const;
/** How long flow logs are kept. */
const FLOW_LOG_DAYS = 30;

export interface Network {
    readonly vpc: aws.ec2.Vpc;
    readonly publicSubnets: readonly aws.ec2.Subnet[];
    readonly privateSubnets: readonly aws.ec2.Subnet[];
    readonly serverGroup: aws.ec2.SecurityGroup;
    readonly workerGroup: aws.ec2.SecurityGroup;
    readonly zone: aws.route53.Zone;
    readonly serverName: string;
    /** What must be there before a node can reach anything. */
    readonly routes: readonly pulumi.Resource[];
}

export function network(settings: Settings, account: pulumi.Output<string>): Network {
    const vpc = new aws.ec2.Vpc("vpc", {
        cidrBlock: VPC_CIDR,
        enableDnsHostnames: true,
        enableDnsSupport: true,
        tags: tags(settings, "vpc"),
    });
    // What lies in the default group by mistake talks to nobody.
    new aws.ec2.DefaultSecurityGroup("default", { vpcId: vpc.id, ingress: [], egress: [], tags: tags(settings, "default-closed") });
    const { publicSubnets, privateSubnets, tables, routes } = subnets(settings, vpc);
    for (const service of ["dynamodb", "s3"]) {
        new aws.ec2.VpcEndpoint(`${service}-endpoint`, {
            vpcId: vpc.id,
            serviceName: `com.amazonaws.${settings.region}.${service}`,
            vpcEndpointType: "Gateway",
            routeTableIds: tables.map(table => table.id),
            tags: tags(settings, service),
        });
    }
    const { serverGroup, workerGroup } = groups(settings, vpc);
    const zone = new aws.route53.Zone("zone", {
        name: zoneName(settings),
        comment: "Where the nodes find their servers",
        vpcs: [{ vpcId: vpc.id }],
        tags: tags(settings, "zone"),
    });
    if (settings.flowLogs) {
        flowLogs(settings, vpc, account);
    }
    return { vpc, publicSubnets, privateSubnets, serverGroup, workerGroup, zone, serverName: serverName(settings), routes };
}

interface Subnets {
    readonly publicSubnets: aws.ec2.Subnet[];
    readonly privateSubnets: aws.ec2.Subnet[];
    readonly tables: aws.ec2.RouteTable[];
    readonly routes: pulumi.Resource[];
}

function subnets(settings: Settings, vpc: aws.ec2.Vpc): Subnets {
    const names = aws.getAvailabilityZonesOutput({
        state: "available",
        filters: [{ name: "opt-in-status", values: ["opt-in-not-required"] }],
    }).names;
    const gateway = new aws.ec2.InternetGateway("gateway", { vpcId: vpc.id, tags: tags(settings, "gateway") });
    const publicTable = new aws.ec2.RouteTable("public", {
        vpcId: vpc.id,
        routes: [{ cidrBlock: "0.0.0.0/0", gatewayId: gateway.id }],
        tags: tags(settings, "public"),
    });
    const publicSubnets: aws.ec2.Subnet[] = [];
    const privateSubnets: aws.ec2.Subnet[] = [];
    const tables: aws.ec2.RouteTable[] = [];
    const nats: aws.ec2.NatGateway[] = [];
    const routes: pulumi.Resource[] = [];
    // A zone that is out of service today is missing in the list, and its subnets stay where they are.
    const placed = { ignoreChanges: ["availabilityZone"] };
    ZONES.forEach((cidr, index) => {
        const availabilityZone = names.apply(all => zoneAt(all, index));
        const open = new aws.ec2.Subnet(`public-${index}`, {
            vpcId: vpc.id,
            cidrBlock: cidr.public,
            availabilityZone,
            mapPublicIpOnLaunch: false,
            tags: tags(settings, `public-${index}`),
        }, placed);
        publicSubnets.push(open);
        routes.push(new aws.ec2.RouteTableAssociation(`public-${index}`, { subnetId: open.id, routeTableId: publicTable.id }));
        if (index === 0 || settings.natPerZone) {
            const address = new aws.ec2.Eip(`nat-${index}`, { domain: "vpc", tags: tags(settings, `nat-${index}`) });
            const nat = { allocationId: address.id, subnetId: open.id, tags: tags(settings, `nat-${index}`) };
            nats.push(new aws.ec2.NatGateway(`nat-${index}`, nat, { dependsOn: gateway }));
        }
        const closed = new aws.ec2.Subnet(`private-${index}`, {
            vpcId: vpc.id,
            cidrBlock: cidr.private,
            availabilityZone,
            mapPublicIpOnLaunch: false,
            tags: tags(settings, `private-${index}`),
        }, placed);
        privateSubnets.push(closed);
        const nat = nats[nats.length - 1];
        const table = new aws.ec2.RouteTable(`private-${index}`, {
            vpcId: vpc.id,
            routes: nat ? [{ cidrBlock: "0.0.0.0/0", natGatewayId: nat.id }] : [],
            tags: tags(settings, `private-${index}`),
        });
        tables.push(table);
        routes.push(new aws.ec2.RouteTableAssociation(`private-${index}`, { subnetId: closed.id, routeTableId: table.id }));
    });
    return { publicSubnets, privateSubnets, tables, routes };
}

function zoneAt(names: readonly string[], index: number): string {
    const name = names[index];
    if (name === undefined) {
        throw new Error(`the region has ${names.length} zone(s); right would be one with at least ${ZONES.length}`);
    }
    return name;
}

type Side = "server" | "worker";

/** A port that one side opens to the other. */
export interface Opening {
    readonly to: Side;
    readonly from: Side;
    readonly protocol: "tcp" | "udp";
    readonly first: number;
    readonly last: number;
    readonly why: string;
}

/** Where the daemons answer. */
export const DAEMON_PORT = 9477;

/** What K3s with flannel's VXLAN needs between its nodes, and the scrapes. Nothing else is open. */
export const OPENINGS: readonly Opening[] = [
    { to: "server", from: "worker", protocol: "tcp", first: 6443, last: 6443, why: "agents and kubelets reach the API server" },
    { to: "server", from: "server", protocol: "tcp", first: 6443, last: 6443, why: "servers join each other" },
    { to: "server", from: "server", protocol: "tcp", first: 2379, last: 2380, why: "embedded etcd" },
    { to: "server", from: "server", protocol: "tcp", first: 10250, last: 10250, why: "kubelet: logs, exec, metrics" },
    { to: "worker", from: "server", protocol: "tcp", first: 10250, last: 10250, why: "kubelet: logs, exec, metrics" },
    // metrics-server is a pod and may run on a worker.
    { to: "server", from: "worker", protocol: "tcp", first: 10250, last: 10250, why: "kubelet: metrics-server" },
    { to: "worker", from: "worker", protocol: "tcp", first: 10250, last: 10250, why: "kubelet: metrics-server" },
    { to: "server", from: "server", protocol: "udp", first: 8472, last: 8472, why: "flannel VXLAN" },
    { to: "server", from: "worker", protocol: "udp", first: 8472, last: 8472, why: "flannel VXLAN" },
    { to: "worker", from: "server", protocol: "udp", first: 8472, last: 8472, why: "flannel VXLAN" },
    { to: "worker", from: "worker", protocol: "udp", first: 8472, last: 8472, why: "flannel VXLAN" },
    { to: "server", from: "server", protocol: "tcp", first: 9100, last: 9100, why: "Prometheus scrapes node_exporter" },
    { to: "worker", from: "server", protocol: "tcp", first: 9100, last: 9100, why: "Prometheus scrapes node_exporter" },
    { to: "server", from: "server", protocol: "tcp", first: DAEMON_PORT, last: DAEMON_PORT, why: "Prometheus scrapes every daemon" },
];

function groups(settings: Settings, vpc: aws.ec2.Vpc): { serverGroup: aws.ec2.SecurityGroup; workerGroup: aws.ec2.SecurityGroup } {
    const group = (name: Side): aws.ec2.SecurityGroup =>
        new aws.ec2.SecurityGroup(name, {
            vpcId: vpc.id,
            description: `K3s ${name}s of ${settings.cluster}`,
            revokeRulesOnDelete: true,
            tags: tags(settings, name),
        });
    const sides: Record<Side, aws.ec2.SecurityGroup> = { server: group("server"), worker: group("worker") };
    for (const opening of OPENINGS) {
        const { to, from, protocol, first, last, why } = opening;
        new aws.vpc.SecurityGroupIngressRule(`${to}-from-${from}-${protocol}-${first}`, {
            securityGroupId: sides[to].id,
            referencedSecurityGroupId: sides[from].id,
            ipProtocol: protocol,
            fromPort: first,
            toPort: last,
            description: why,
            tags: tags(settings, `${to}-from-${from}-${first}`),
        });
    }
    for (const side of ["server", "worker"] as const) {
        new aws.vpc.SecurityGroupEgressRule(`${side}-out`, {
            securityGroupId: sides[side].id,
            cidrIpv4: "0.0.0.0/0",
            ipProtocol: "-1",
            description: "Images, packages, AWS",
            tags: tags(settings, `${side}-out`),
        });
    }
    settings.apiFrom.forEach((cidrIpv4, index) => {
        new aws.vpc.SecurityGroupIngressRule(`api-from-${index}`, {
            securityGroupId: sides.server.id,
            cidrIpv4,
            ipProtocol: "tcp",
            fromPort: 6443,
            toPort: 6443,
            description: "node-fleet:apiFrom",
            tags: tags(settings, `api-from-${index}`),
        });
    });
    return { serverGroup: sides.server, workerGroup: sides.worker };
}

function flowLogs(settings: Settings, vpc: aws.ec2.Vpc, account: pulumi.Output<string>): void {
    const group = new aws.cloudwatch.LogGroup("flow-logs", { retentionInDays: FLOW_LOG_DAYS, tags: tags(settings, "flow-logs") });
    const role = new aws.iam.Role("flow-logs", {
        description: "The flow logs of node-fleet's VPC write into their group",
        assumeRolePolicy: pulumi.all([account, group.arn]).apply(([id, arn]) => JSON.stringify(flowLogTrust(settings, id, arn))),
        tags: tags(settings, "flow-logs"),
    });
    const rights = new aws.iam.RolePolicy("flow-logs", { role: role.id, policy: group.arn.apply(arn => JSON.stringify(flowLogWriter(arn))) });
    new aws.ec2.FlowLog("flow-logs", {
        vpcId: vpc.id,
        trafficType: "ALL",
        logDestination: group.arn,
        iamRoleArn: role.arn,
        tags: tags(settings, "flow-logs"),
    }, { dependsOn: rights });
}

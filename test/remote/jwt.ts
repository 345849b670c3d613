/** Operator mode without nsc: signs the few JWTs that a nats-server and one user need. */
import { Buffer } from "node:buffer";
import { nkeys } from "nats.ws";

interface KeyPair {
  getPublicKey(): string;
  getSeed(): Uint8Array;
  sign(bytes: Uint8Array): Uint8Array;
}

/** @returns configuration for the server, and the text of a user's credentials file. */
export function operatorMode(): { config: string; creds: string } {
  const operator: KeyPair = nkeys.createOperator();
  const account: KeyPair = nkeys.createAccount();
  // JetStream, which the servers of the tests have open, wants a system account.
  const system: KeyPair = nkeys.createAccount();
  const user: KeyPair = nkeys.createUser();
  const limits = { subs: -1, conn: -1, leaf: -1, imports: -1, exports: -1, data: -1, payload: -1 };
  const operatorJwt = sign(operator, operator, "operator", {});
  const accountJwt = sign(operator, account, "account", { limits: { ...limits, wildcards: true } });
  const systemJwt = sign(operator, system, "account", { limits: { ...limits, wildcards: true } });
  const userJwt = sign(account, user, "user", { subs: -1, data: -1, payload: -1 });
  const seed = new TextDecoder().decode(user.getSeed());
  return {
    config: `operator: ${operatorJwt}
resolver: MEMORY
system_account: ${system.getPublicKey()}
resolver_preload: {
  ${account.getPublicKey()}: ${accountJwt}
  ${system.getPublicKey()}: ${systemJwt}
}`,
    creds: `-----BEGIN NATS USER JWT-----
${userJwt}
------END NATS USER JWT------

************************* IMPORTANT *************************
NKEY Seed printed below can be used to sign and prove identity.

-----BEGIN USER NKEY SEED-----
${seed}
------END USER NKEY SEED------

*************************************************************
`,
  };
}

function sign(issuer: KeyPair, subject: KeyPair, type: string, nats: object): string {
  const head = base64({ typ: "JWT", alg: "ed25519-nkey" });
  const body = base64({
    jti: crypto.randomUUID(),
    iat: Math.floor(Date.now() / 1000),
    iss: issuer.getPublicKey(),
    sub: subject.getPublicKey(),
    name: type,
    nats: { ...nats, type, version: 2 },
  });
  const signature = issuer.sign(new TextEncoder().encode(`${head}.${body}`));
  return `${head}.${body}.${Buffer.from(signature).toString("base64url")}`;
}

function base64(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString("base64url");
}

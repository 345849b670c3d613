/**
 * Addresses and networks as bytes, against those of node:net.
 * Runs once: functions of values alone: nothing of a runtime is asked.
 */
import assert from "node:assert/strict";
import { BlockList, isIPv6 } from "node:net";
import { test } from "node:test";
import fc from "fast-check";
import { isWithin, parseAddress, parseNetwork } from "../../src/kernel/address.ts";

test("an address in any way of writing it", () => {
  const same = [
    ["192.0.2.1", "::ffff:192.0.2.1", "::FFFF:c000:201", "0:0:0:0:0:ffff:192.0.2.1"],
    ["::1", "0:0:0:0:0:0:0:1", "::0.0.0.1"],
    ["::", "0::0"],
    ["fe80::1", "fe80::1%eth0", "FE80:0:0::1"],
  ];
  for (const [first = "", ...others] of same) {
    const bytes = parseAddress(first);
    assert.equal(bytes?.length, 16);
    for (const other of others) assert.deepEqual(parseAddress(other), bytes, other);
  }
  for (
    const none of ["", "1.2.3", "1.2.3.4.5", "1.2.3.256", "::1::", "[::1]", "host", "1.2.3.4/8"]
  ) {
    assert.equal(parseAddress(none), null, none);
  }
});

test("a network is an address, or a prefix with nothing behind it", () => {
  for (const sound of ["10.0.0.0/8", "0.0.0.0/0", "10.1.2.3", "::/0", "2001:db8::/32", "::1/128"]) {
    assert.notEqual(parseNetwork(sound), null, sound);
  }
  for (
    const none of ["10.0.0.1/8", "10.0.0.0/33", "::1/64", "::/129", "10.0.0.0/", "10.0.0.0/8/8"]
  ) {
    assert.equal(parseNetwork(none), null, none);
  }
});

test("what is within a network", () => {
  const within = (address: string, network: string) =>
    isWithin(parseAddress(address)!, parseNetwork(network)!);
  assert.equal(within("10.200.0.1", "10.0.0.0/8"), true);
  assert.equal(within("::ffff:10.200.0.1", "10.0.0.0/8"), true);
  assert.equal(within("11.0.0.1", "10.0.0.0/8"), false);
  assert.equal(within("2001:db8:ffff::1", "2001:db8::/32"), true);
  assert.equal(within("1.2.3.4", "::/0"), true);
  fc.assert(fc.property(fc.ipV4(), fc.ipV6(), fc.integer({ min: 0, max: 128 }), (v4, v6, bits) => {
    for (const address of [v4, v6]) {
      const six = isIPv6(address);
      const prefix = six ? bits : bits % 33;
      const list = new BlockList();
      list.addSubnet(six ? "2001:db8::" : "10.0.0.0", prefix, six ? "ipv6" : "ipv4");
      const network = parseNetwork(`${six ? "2001:db8::" : "10.0.0.0"}/${prefix}`);
      if (network === null) continue;
      const wanted = list.check(address, six ? "ipv6" : "ipv4");
      assert.equal(isWithin(parseAddress(address)!, network), wanted, `${address} /${prefix}`);
    }
  }));
});

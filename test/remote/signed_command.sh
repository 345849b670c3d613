secret=$(cat control-secret) subject=shishi.stop.eu
ms=$(date +%s)000 nonce=$(openssl rand -hex 16)
hex=$(printf '%s\n%s\n%s\n' "$ms" "$nonce" "$subject" | openssl dgst -sha256 -hmac "$secret" -r | cut -d ' ' -f 1)
nats req "$subject" '' --replies 0 --timeout 5s -H "Shishi-Signature:v1,$ms,$nonce,$hex"

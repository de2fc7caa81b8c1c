<?php
// Mints unsubd's headers without unsubd. $key: the hex of `unsubd sender key SENDER --signing`. See README.md.

function unsubd_headers(string $key, string $sender, int $group, string $recipient, string $template, string $publicUrl): array
{
    [$local, $domain] = unsubd_canonical($recipient);
    if (!preg_match('/^[a-z0-9]{1,16}$/D', $sender) || $group < 0 || $group > 4294967295) {
        throw new InvalidArgumentException('no such sender or group');
    }
    $signed = implode("\0", ['unsubd-tag-1', $sender, (string) $group, "$local@$domain"]);
    $mac = substr(unsubd_base32(hash_hmac('sha256', $signed, hex2bin($key), true)), 0, 13);
    $ldh = preg_match('/^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/D', $domain);
    $readable = $ldh && preg_match('/^[a-z0-9_-]+(\.[a-z0-9_-]+)*$/D', $local);
    $tag = ($readable ? 'a' : 'b') . "$mac-$sender-$group-" . ($readable ? "{$local}_$domain" : unsubd_base32("$local@$domain"));
    $mailbox = str_replace('{tag}', $tag, $template);
    if (strrpos($mailbox, '@') > 64) {
        throw new InvalidArgumentException('address too long: its tag must be stored (form h), ask unsubd for its headers');
    }
    return ['List-Unsubscribe' => "<mailto:$mailbox>, <$publicUrl/u/$tag>", 'List-Unsubscribe-Post' => 'List-Unsubscribe=One-Click'];
}

function unsubd_canonical(string $address): array
{
    if (!preg_match('/^[\x00-\x7f]*$/D', $address)) {
        throw new InvalidArgumentException('address outside ASCII: ask unsubd for its headers');
    }
    $text = strtolower(trim($address));
    $at = (int) strrpos($text, '@');
    [$local, $domain] = [substr($text, 0, $at), substr($text, $at + 1)];
    if (!preg_match('/^\[[0-9a-z:.-]+\]$/D', $domain)) {
        $domain = rtrim($domain, '.');
        $known = strlen($domain) <= 253 && preg_match('/^[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*$/D', $domain);
    }
    $special = preg_match('/[\s"(),:;<>@\[\\\\\]]/', $local) && !preg_match('/^"([^"\\\\]|\\\\.)*"$/Ds', $local);
    if ($local === '' || !($known ?? true) || $special || preg_match('/[\x00-\x1f\x7f]/', $local)) {
        throw new InvalidArgumentException('not one bare address');
    }
    return [$local, $domain];
}

function unsubd_base32(string $bytes): string
{
    $bits = implode('', array_map(fn ($octet) => sprintf('%08b', $octet), unpack('C*', $bytes)));
    return implode('', array_map(fn ($five) => 'abcdefghijklmnopqrstuvwxyz234567'[bindec(str_pad($five, 5, '0'))], str_split($bits, 5)));
}

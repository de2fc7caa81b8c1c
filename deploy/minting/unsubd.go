// Package unsubd mints unsubd's headers without unsubd. See README.md.
package unsubd

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

var (
	senderID = regexp.MustCompile(`^[a-z0-9]{1,16}$`)
	readable = regexp.MustCompile(`^[a-z0-9_-]+(\.[a-z0-9_-]+)*$`)
	ldh      = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)
	known    = regexp.MustCompile(`^(\[[0-9a-z:.-]+\]|[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*)$`)
	special  = regexp.MustCompile(`[\s"(),:;<>@\[\\\]\x00-\x1f\x7f]`)
	quoted   = regexp.MustCompile(`^"([^"\\\x00-\x1f\x7f]|\\[^\x00-\x1f\x7f])*"$`)
	ascii    = regexp.MustCompile(`^[\x00-\x7f]*$`)
	letters  = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
)

// Headers returns the two headers of one recipient's mail. Key: the hex of `unsubd sender key SENDER --signing`.
func Headers(key, sender string, group uint32, recipient, template, publicURL string) (map[string]string, error) {
	secret, err := hex.DecodeString(key)
	address := strings.ToLower(strings.TrimSpace(recipient))
	at := strings.LastIndex(address, "@")
	if err != nil || !senderID.MatchString(sender) {
		return nil, errors.New("no such sender, or a key that is not hex")
	} else if !ascii.MatchString(recipient) {
		return nil, errors.New("address outside ASCII: ask unsubd for its headers")
	} else if at < 1 {
		return nil, errors.New("not one bare address")
	}
	local, domain := address[:at], strings.TrimRight(address[at+1:], ".")
	if !known.MatchString(domain) || len(domain) > 253 || special.MatchString(local) && !quoted.MatchString(local) {
		return nil, errors.New("not one bare address")
	}
	mac := hmac.New(sha256.New, secret)
	fmt.Fprintf(mac, "unsubd-tag-1\x00%s\x00%d\x00%s@%s", sender, group, local, domain)
	head := fmt.Sprintf("%s-%s-%d-", letters.EncodeToString(mac.Sum(nil))[:13], sender, group)
	tag := "b" + head + letters.EncodeToString([]byte(local+"@"+domain))
	if readable.MatchString(local) && ldh.MatchString(domain) {
		tag = "a" + head + local + "_" + domain
	}
	mailbox := strings.Replace(template, "{tag}", tag, 1)
	if strings.LastIndex(mailbox, "@") > 64 {
		return nil, errors.New("address too long: its tag must be stored (form h), ask unsubd for its headers")
	}
	return map[string]string{
		"List-Unsubscribe":      fmt.Sprintf("<mailto:%s>, <%s/u/%s>", mailbox, publicURL, tag),
		"List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
	}, nil
}

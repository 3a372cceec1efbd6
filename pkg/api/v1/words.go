package v1

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

// ulimitNames are the limits that Docker knows.
var ulimitNames = []string{
	"core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime",
	"sigpending", "stack",
}

// ipcSysctls are those of the IPC and UTS namespaces, which have no prefix of their own.
var ipcSysctls = []string{
	"kernel.domainname", "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
	"kernel.shmmni", "kernel.shm_rmid_forced",
}

// capabilities are those of Linux, without CAP_.
var capabilities = strings.Fields(`AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN
	DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD
	NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT
	SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM`)

// isCapability takes what Docker takes: with or without CAP_, in any case, and ALL.
func isCapability(name string) bool {
	name = strings.TrimPrefix(strings.ToUpper(name), "CAP_")
	return name == "ALL" || slices.Contains(capabilities, name)
}

// signals are those of Linux, without SIG.
var signals = strings.Fields(`ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT
	STOP SYS TERM TRAP TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ RTMIN RTMAX`)

// isSignal takes a number, or a name with or without SIG in any case; real-time signals also like RTMIN+3.
func isSignal(s string) bool {
	if n, err := strconv.Atoi(s); err == nil {
		return n >= 1 && n <= 64
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	for base, sign := range map[string]string{"RTMIN": "+", "RTMAX": "-"} {
		if rest, ok := strings.CutPrefix(name, base+sign); ok {
			n, err := strconv.ParseUint(rest, 10, 8)
			return err == nil && n >= 1 && n <= 30
		}
	}
	return slices.Contains(signals, name)
}

// isSysctl tells whether a sysctl's name is words with dots between, or slashes, as sysctl(8) also writes them. The name
// becomes a path below /proc/sys with each dot a slash, so that an empty word, or one that is . or .., would lead elsewhere.
func isSysctl(name string) bool {
	for word := range strings.SplitSeq(strings.ReplaceAll(name, "/", "."), ".") {
		if !made(word, "_-") {
			return false
		}
	}
	return true
}

// isUser takes USER and USER:GROUP.
func isUser(s string) bool {
	user, group, grouped := strings.Cut(s, ":")
	return isAccount(user) && (!grouped || isAccount(group))
}

// isAccount takes the name or number of a user or group: what is all digits is a number. The highest of 32 bits means "leave
// as it is" to the kernel and is nobody's.
func isAccount(s string) bool {
	if !made(s, "_.-$") || s[0] == '-' {
		return false
	}
	if strings.Trim(s, "0123456789") == "" {
		n, err := strconv.ParseUint(s, 10, 32)
		return err == nil && n < math.MaxUint32
	}
	return true
}

// made tells whether a text is not empty and made of letters, digits and those of others.
func made(s, others string) bool {
	for i := range len(s) {
		if !isAlnum(s[i]) && strings.IndexByte(others, s[i]) < 0 {
			return false
		}
	}
	return s != ""
}

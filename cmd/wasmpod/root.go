package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"github.com/wasmpod/wasmpod/runtime"
	"github.com/wasmpod/wasmpod/runtime/image"
)

// version is set by the linker.
var version = "devel"

// app is what the commands share: streams, and configuration read once.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	viper          *viper.Viper
	config         runtime.Config
	log            *slog.Logger
}

func newCommand(stdin io.Reader, stdout, stderr io.Writer) *cobra.Command {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, viper: viper.New()}
	root := &cobra.Command{
		Use:   "wasmpod",
		Short: "Run Kubernetes Pods whose containers are WebAssembly modules",
		Long: `wasmpod runs Kubernetes Pods whose containers are WebAssembly (WASI preview 1)
modules: one binary, no container engine, no root.

Every flag can also be set by an environment variable (WASMPOD_DATA_DIR for
--data-dir) or in a configuration file (data-dir: /srv/wasmpod).`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.configure(cmd.Flags()) },
	}
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &exitError{exitInvalid, fmt.Errorf("%w (see '%s --help')", err, cmd.CommandPath())}
	})
	flags := root.PersistentFlags()
	flags.String("data-dir", "", "where images, compiled code and logs are kept (default: by the XDG convention, /var/lib/wasmpod for root)")
	flags.StringSlice("image-stores", nil, "further image stores, read only (default: the folder 'images' beside the binary, if there is one)")
	flags.StringSlice("registry-mirrors", nil, "registries to ask before others, REGISTRY=HOST[:PORT][/PREFIX], as in docker.io=127.0.0.1:5000")
	flags.StringSlice("insecure-registries", nil, "registries (HOST or HOST:PORT) to speak to by plain http or under any certificate; loopback addresses may always use http")
	flags.StringSlice("signature-keys", nil, "pull images whose names begin so only if they are signed by this key ('cosign sign --key'), PREFIX=FILE, as in registry.example.com/team=cosign.pub; PREFIX * stands for all others")
	flags.StringSlice("allowed-imports", nil, "host functions that modules of a namespace's pods may import, NAMESPACE=MODULE.FUNCTION, as in default=wasi_snapshot_preview1.*; NAMESPACE * stands for all others")
	flags.Int("max-parallel-image-pulls", 1, "how many images pods pull at a time")
	flags.Float64("registry-qps", 5, "how many pulls of pods may begin in a second (0: no limit)")
	flags.Int("registry-burst", 10, "how many pulls of pods may begin at once after a pause")
	flags.Int("image-gc-high-threshold", 85, "remove pulled images that are not used when the disk is fuller than so many percent (100: never)")
	flags.Int("image-gc-low-threshold", 80, "until it is not fuller than so many percent")
	flags.Duration("image-minimum-gc-age", 2*time.Minute, "keep images that were used so recently")
	flags.Duration("image-maximum-gc-age", 0, "remove pulled images that were not used for so long, however full the disk is (0: never)")
	flags.Bool("offline", false, "never ask a registry for an image")
	flags.String("config", "", "configuration file (default: wasmpod/config.yaml below $XDG_CONFIG_HOME, then below /etc)")
	flags.String("node-name", "", "name of this node (default: the host's name)")
	flags.Bool("interpreter", false, "interpret modules instead of compiling them: slower, for CPUs without compiler support")
	flags.String("egress", "allow", "what pods may reach outside: allow, deny, or a list of CIDR[:port[-port]][/tcp|/udp] and dns; the host itself only if listed")
	flags.String("egress-wall", "auto", "have the kernel check that too, by BPF programs at a cgroup of this process's own: if it can (auto), required, or off")
	flags.String("cni-conf-dir", "", "folder with a configuration of CNI, whose plugins give pods their IPs (needs root; default: pod IPs are addresses of loopback)")
	flags.StringSlice("cni-bin-dir", nil, "folders with CNI plugins (default: /opt/cni/bin, /usr/lib/cni, /usr/libexec/cni)")
	flags.String("cgroup-parent", "", "make a cgroup for this process and its pods in this one, or in the one it is in (auto), and have the kernel enforce what pods may have of the machine")
	flags.String("system-reserved", "", "what pods may not have of the machine, such as cpu=500m,memory=512Mi")
	flags.String("eviction-hard", "memory.available<100Mi", "evict pods when less memory is available (empty: never)")
	flags.String("log-level", "warn", "least severe messages to print: debug, info, warn or error")
	flags.String("log-format", "text", "form of messages: text or json")
	for flag, values := range map[string][]string{
		"log-level":   {"debug", "info", "warn", "error"},
		"log-format":  {"text", "json"},
		"egress-wall": {"auto", "required", "off"},
	} {
		_ = root.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	root.AddCommand(newRunCommand(a), newImageCommand(a), newTopCommand(a), newCheckCommand(a), newGoCommand(a), newVersionCommand(a))
	return root
}

// configure reads flags, environment and file, in that order of precedence.
func (a *app) configure(flags *pflag.FlagSet) error {
	invalid := func(err error) error { return &exitError{exitInvalid, err} }
	v := a.viper
	if err := v.BindPFlags(flags); err != nil {
		return err
	}
	v.SetEnvPrefix("WASMPOD")
	v.SetEnvKeyReplacer(strings.NewReplacer("-", "_"))
	v.AutomaticEnv()
	if file := v.GetString("config"); file != "" {
		v.SetConfigFile(file)
	} else {
		v.SetConfigName("config")
		v.SetConfigType("yaml")
		if dir, err := os.UserConfigDir(); err == nil {
			v.AddConfigPath(filepath.Join(dir, "wasmpod"))
		}
		v.AddConfigPath("/etc/wasmpod")
	}
	var none viper.ConfigFileNotFoundError
	if err := v.ReadInConfig(); err != nil && !errors.As(err, &none) {
		return invalid(fmt.Errorf("configuration file: %w", err))
	}

	switch w := runtime.EgressWall(v.GetString("egress-wall")); w {
	case runtime.WallAuto, runtime.WallRequired, runtime.WallOff:
	default:
		return invalid(fmt.Errorf("--egress-wall: %q is none of auto, required, off", w))
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(v.GetString("log-level"))); err != nil {
		return invalid(fmt.Errorf("--log-level: %q is none of debug, info, warn, error", v.GetString("log-level")))
	}
	options := &slog.HandlerOptions{Level: level}
	switch format := v.GetString("log-format"); format {
	case "text":
		a.log = slog.New(slog.NewTextHandler(a.stderr, options))
	case "json":
		a.log = slog.New(slog.NewJSONHandler(a.stderr, options))
	default:
		return invalid(fmt.Errorf("--log-format: %q is neither text nor json", format))
	}

	dataDir := v.GetString("data-dir")
	if dataDir == "" {
		var err error
		if dataDir, err = defaultDataDir(); err != nil {
			return invalid(fmt.Errorf("no place for data: %w; set --data-dir", err))
		}
	}
	dataDir, err := filepath.Abs(dataDir)
	if err != nil {
		return err
	}
	baseDir, err := os.Getwd()
	if err != nil {
		return err
	}
	stores := v.GetStringSlice("image-stores")
	if len(stores) == 0 {
		stores = shippedImages()
	}
	mirrors, err := image.ParseMirrors(v.GetStringSlice("registry-mirrors"))
	if err != nil {
		return invalid(fmt.Errorf("--registry-mirrors: %w", err))
	}
	reserved, err := runtime.ParseReserved(v.GetString("system-reserved"))
	if err != nil {
		return invalid(fmt.Errorf("--system-reserved: %w", err))
	}
	evictBelow, err := runtime.ParseEvictionHard(v.GetString("eviction-hard"))
	if err != nil {
		return invalid(fmt.Errorf("--eviction-hard: %w", err))
	}
	gc := image.Thresholds{
		High: v.GetInt("image-gc-high-threshold"), Low: v.GetInt("image-gc-low-threshold"),
		MinAge: v.GetDuration("image-minimum-gc-age"), MaxAge: v.GetDuration("image-maximum-gc-age"),
	}
	if err := gc.Check(); err != nil {
		return invalid(fmt.Errorf("image garbage collection: %w", err))
	}
	signatures, err := image.ParseSignaturePolicies(v.GetStringSlice("signature-keys"))
	if err != nil {
		return invalid(fmt.Errorf("--signature-keys: %w", err))
	}
	imports, err := image.ParseImportPolicy(v.GetStringSlice("allowed-imports"))
	if err != nil {
		return invalid(fmt.Errorf("--allowed-imports: %w", err))
	}
	pullQPS := v.GetFloat64("registry-qps")
	if pullQPS <= 0 {
		pullQPS = -1
	}
	a.config = runtime.Config{
		ImageGC: gc,
		Registries: image.Registries{
			Offline:  v.GetBool("offline"),
			Insecure: v.GetStringSlice("insecure-registries"),
			Mirrors:  mirrors,

			MaxParallelPulls: max(1, v.GetInt("max-parallel-image-pulls")),
			PullQPS:          pullQPS,
			PullBurst:        max(1, v.GetInt("registry-burst")),
		},
		Signatures:   signatures,
		Imports:      imports,
		SettleImages: true,

		DataDir:     dataDir,
		ImageStores: stores,
		BaseDir:     baseDir,
		NodeName:    v.GetString("node-name"),
		Interpreter: v.GetBool("interpreter"),
		Egress:      v.GetString("egress"),
		EgressWall:  runtime.EgressWall(v.GetString("egress-wall")),
		CNIConfDir:  v.GetString("cni-conf-dir"),
		CNIBinDirs:  v.GetStringSlice("cni-bin-dir"),

		CgroupParent: v.GetString("cgroup-parent"),
		Reserved:     reserved,
		EvictBelow:   evictBelow,

		Log: a.log,
	}
	return nil
}

func defaultDataDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/wasmpod", nil
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "wasmpod"), nil
	}
	home, err := os.UserHomeDir()
	return filepath.Join(home, ".local", "share", "wasmpod"), err
}

// shippedImages returns the image store that was shipped beside the binary, so
// that a device image can bring both.
func shippedImages() []string {
	exe, err := os.Executable()
	if err != nil {
		return nil
	}
	dir := filepath.Join(filepath.Dir(exe), "images")
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return []string{dir}
}

func newVersionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			goVersion := ""
			if info, ok := debug.ReadBuildInfo(); ok {
				goVersion = info.GoVersion
			}
			_, err := fmt.Fprintf(a.stdout, "wasmpod %s (%s)\n", version, goVersion)
			return err
		},
	}
}

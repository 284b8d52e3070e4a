package container

import (
	"errors"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestFileKeyRefENV06(t *testing.T) {
	const file = "# comment\n\n  A='a'\nB='two\n  lines' # comment\nQ='$(A) \"x\" \\n'\nEMPTY=''\nBLANK= 'b'\nA='second'\nC='c'"
	for _, tt := range []struct {
		name, file, key string
		optional        bool
		want            string // of the variable, or else
		err             string
	}{
		{"ENV-06 the first of its name", file, "A", false, "V=a", ""},
		{"ENV-06 several lines", file, "B", false, "V=two\n  lines", ""},
		{"ENV-06 nothing is expanded", file, "Q", false, "V=$(A) \"x\" \\n", ""},
		{"ENV-06 the last line", file, "C", false, "V=c", ""},
		{"ENV-06 missing", file, "Z", false, "", `environment variable key "Z" not found in file "dir/env"`},
		{"ENV-06 missing but optional", file, "Z", true, "", ""},
		{"ENV-06 empty", file, "EMPTY", false, "", `environment variable key "EMPTY" not found in file "dir/env"`},
		{"ENV-06 a blank before the value", file, "BLANK", true, "", ""},
		{"ENV-06 no quotes", "A=a\n", "B", true, "", "couldn't parse env file"},
		{"ENV-06 no value", "A=\n", "B", true, "", "couldn't parse env file"},
		{"ENV-06 blank before =", "A ='a'\n", "A", false, "", "couldn't parse env file"},
		{"ENV-06 no name", "='a'\n", "A", false, "", "couldn't parse env file"},
		{"ENV-06 no =", "A\n", "A", false, "", "couldn't parse env file"},
		{"ENV-06 not closed", "A='a\nb\n", "A", false, "", "couldn't parse env file"},
		{"ENV-06 more after the value", "A='a'b\n", "A", false, "", "couldn't parse env file"},
		{"ENV-06 what comes after the key is not read", "A='a'\n!", "A", false, "V=a", ""},
		{"ENV-06 no such file", "", "A", true, "", "couldn't parse env file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pod, c := testPod(func(_ *corev1.Pod, c *corev1.Container) {
				c.Env = []corev1.EnvVar{{Name: "V", ValueFrom: &corev1.EnvVarSource{FileKeyRef: &corev1.FileKeySelector{
					VolumeName: "v", Path: "dir/env", Key: tt.key, Optional: &tt.optional,
				}}}}
			})
			in := testInputs()
			in.VolumeFile = func(volume, path string) ([]byte, error) {
				if volume != "v" || path != "dir/env" || tt.file == "" {
					return nil, errors.New("no such file")
				}
				return []byte(tt.file), nil
			}
			config, err := NewConfig(pod, c, in)
			var configErr *ConfigError
			if tt.err != "" {
				if !errors.As(err, &configErr) || configErr.Reason != "CreateContainerConfigError" || err.Error() != tt.err {
					t.Errorf("%v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(config.Env, func(e string) bool { return e[:2] == "V=" })
			if tt.want == "" && i >= 0 || tt.want != "" && (i < 0 || config.Env[i] != tt.want) {
				t.Errorf("%q, want %q", config.Env, tt.want)
			}
		})
	}
}

func FuzzEnvFile(f *testing.F) {
	f.Add("A='a'\n# x\nB='b\nc' # y\n", "B")
	f.Add("A= 'a'", "A")
	f.Fuzz(func(t *testing.T, text, key string) {
		if value, ok := envFileValue(text, key); !ok && value != "" {
			t.Errorf("%q of what is not valid", value)
		}
	})
}

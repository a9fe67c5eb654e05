# What the sandbox does in a round trip. The settings (paths, lists, functions), which are in $own/control.sh, come first: they
# end by sourcing this script, which is uploaded as script.sh, or have it behind them in the same file.
#
# A sandbox may hold any of dash, bash and busybox as its `sh`, and any of GNU tar, bsdtar, busybox and toybox as its
# `tar`; Debian's busybox tar knows neither `--exclude` nor `-T`. So this uses what all of them share, and more only
# where `tar --version` says whose it is. Needed are sh, tar, find, mkdir, rm, wc, head, tail and cat, and mv for a download
# in parts; used where they are found: stat, sort, awk, comm, touch, sleep, ps, sha256sum, cksum, sed, chmod, id, dd, gzip,
# gunzip, zcat and zstd.
#
# An archive may be uploaded and downloaded in parts: the first under the archive's name, the second with `.2` behind it,
# and so on. Each may be compressed by itself.
#
# It calls itself by `find -exec`, which gives it the names at the top of the workspace. They begin with `./`, so none
# of them is taken for an option.

# Options of a shell from outside (bash takes them from SHELLOPTS) would change what a line means.
set +Cefu
# Options for tar from outside are taken away, and in the C locale a name is its bytes.
unset TAR_OPTIONS
LC_ALL=C TZ=UTC0
export LC_ALL TZ

self=$0 asset_index= work=$own tick= zstd_says= token=
export self

# Calls this script for what is at the top of the workspace. (`find` would replace a `{}` in the script's own path.)
top_level() {
    find . -mindepth 1 -maxdepth 1 ! -name .paperclip-runtime -exec sh -c 'exec sh "$self" "$@"' sh "$@" {} +
}

# Whether a program is there. Zstd must also read a frame, which is tried once.
is_found() {
    command -v "$1" >/dev/null 2>&1 || return
    [ "$1" = zstd ] || return 0
    [ -n "$zstd_says" ] ||
        zstd_says=says-$(printf '\050\265\057\375\004\130\021\000\000ok\371\134\024\026' | zstd -dcq 2>/dev/null)
    [ "$zstd_says" = says-ok ]
}

# Says which tools the sandbox has that the next upload can use, for which download this answer is, and how many came before.
tell_tools() {
    if is_found zstd; then echo 'tools zstd'; else echo tools; fi
    [ -z "$token" ] || echo "packed $token$earlier"
}

# Waits until no other command works on this workspace, and keeps others waiting until this one ends. A command goes on where
# the process that started it was killed or has given up: it would clear what this one extracts, or replace what it packs.
take_turn() {
    working=$dir/.paperclip-runtime/uploading
    waited=0
    until (set -C && echo $$ > "$working") 2>/dev/null; do
        if [ ! -e "$working" ] && [ ! -L "$working" ]; then
            # Without the right to make it, as in a folder that the agent has made read-only, no command waits for another.
            chmod u+rwx "$dir/.paperclip-runtime" 2>/dev/null
            (set -C && echo $$ > "$working") 2>/dev/null && break
            [ -e "$working" ] || [ -L "$working" ] || return 0
        fi
        [ "$waited" -lt 60 ] || return
        waited=$((waited + 1))
        other=
        { read -r other < "$working"; } 2>/dev/null
        # A file that is empty was just made, or its maker was killed at once.
        if [ -z "$other" ] && [ "$waited" -le 5 ] || is_working "$other"; then
            sleep 1
        else
            take_over
        fi 2>/dev/null
    done
    trap end_turn EXIT
}

# Removes the file of a command that has ended, unless another one was faster, and it is that one's by now.
take_over() {
    mv -f "$working" "$working.$$" || return
    moved=
    read -r moved < "$working.$$"
    if [ "$moved" = "$other" ]; then
        rm -rf "$working.$$"
    else
        mv -f "$working.$$" "$working"
    fi
}

end_turn() {
    mine=
    { read -r mine < "$working"; } 2>/dev/null
    [ "$mine" != $$ ] || rm -f "$working"
}

# Whether a process runs this script. Its number may be that of another one by now.
is_working() {
    [ -n "$1" ] && kill -0 "$1" || return
    if [ -r "/proc/$$/cmdline" ]; then
        running=$(cat "/proc/$1/cmdline")
    elif command -v ps >/dev/null; then
        running=$(ps -p "$1" -o args=)
    else
        return 0
    fi
    case $running in
    *control.sh*) ;;
    *) return 1 ;;
    esac
}

# From this line to the end of this part: uploads. A tolerant download does without.

# Refuses an upload before anything is changed.
refuse() {
    remove_archive
    echo "$1" >&2
    exit 1
}

refuse_place() {
    refuse "the workspace's directory in the sandbox is refused: $1; nothing was changed, pass a directory of its own as \
workspaceRemoteDir"
}

# Waits for the other commands. One of them may have taken what this one is to extract.
wait_for_others() {
    take_turn || refuse "another upload into this workspace, or a download, has not ended in the sandbox, which \
.paperclip-runtime/uploading says; nothing was changed, prepare again once it has ended"
    trap 'end_turn; remove_archive' EXIT
    [ "$waited" = 0 ] || { [ -s "$archive$1" ] && [ -f "$self" ] && [ -f "$parts" ]; } || {
        echo "another upload has removed this one's archive; nothing was changed, prepare again" >&2
        exit 1
    }
}

# The workspace is emptied for an upload, so it must not be a folder that holds anything else.
check_place() {
    here=$(pwd -P && echo x) || exit
    here=${here%?x}
    of_user=
    user=$(id -un 2>/dev/null)
    case $user in
    '' | *[!A-Za-z0-9._-]*) ;;
    *) eval "of_user=~$user" ;;
    esac
    for home in "$HOME" "$of_user"; do
        [ -d "$home" ] || continue
        home=$(cd "$home" && pwd -P) || continue
        case $home/ in
        "$here"/) refuse_place "$here is the home directory of the sandbox's user" ;;
        "$here"/*) refuse_place "$here holds the home directory of the sandbox's user" ;;
        esac
    done
    case $here in
    / | /bin | /bin/* | /boot | /boot/* | /dev | /dev/shm | /etc | /etc/* | /home | /lib | /lib/* | /lib32 | /lib64 | \
        /lib64/* | /libx32 | /media | /mnt | /nix | /nix/* | /opt | /proc | /proc/* | /root | /run | /run/user | \
        /sbin | /sbin/* | /snap | /srv | /sys | /sys/* | /tmp | /usr | /usr/bin | /usr/bin/* | /usr/include | \
        /usr/lib | /usr/lib/* | /usr/lib32 | /usr/lib64 | /usr/libexec | /usr/local | /usr/local/bin | \
        /usr/local/lib | /usr/local/sbin | /usr/local/share | /usr/sbin | /usr/sbin/* | /usr/share | /usr/src | \
        /var | /var/cache | /var/lib | /var/lib/dpkg | /var/lib/dpkg/* | /var/local | /var/log | /var/mail | \
        /var/opt | /var/run | /var/spool | /var/tmp | /Applications | /Library | /Library/* | /System | /System/* | \
        /Users | /Volumes | /cores | /private | /private/etc | /private/etc/* | /private/tmp | /private/var | \
        /private/var/tmp)
        refuse_place "$here is a directory of the system"
        ;;
    esac
}

# No file can be extracted where a directory is preserved.
is_no_directory() {
    if [ -d "$1" ] && [ ! -L "$1" ]; then
        refuse "${1#./} is preserved and a directory in the sandbox, but none in the workspace; nothing was changed, \
remove or rename one of them, or exclude it"
    fi
}

# Names this upload in the mark of every earlier one in this workspace, which is about to be replaced. From now on no older
# session takes this workspace for its own.
claim() {
    export upload
    find .paperclip-runtime -mindepth 3 -maxdepth 3 -type f -name mark -exec sh -c '
        for mark do
            case $mark in
            */.paperclip/mark)
                [ -w "$mark" ] || chmod u+w "$mark"
                echo "$upload" > "$mark" || exit
                ;;
            esac
        done' sh {} + || return
    [ -f "$marks/mark" ] || rm -rf "$marks/mark"
    echo "$upload" > "$marks/mark"
}

# Removes what earlier uploads of this run have left.
remove_earlier_uploads() {
    find "$marks" -mindepth 1 -maxdepth 1 ! -name mark ! -name assets ! -name "$upload" -exec rm -rf -- {} +
}

# Removes these names with all that is below them, also where a folder is read-only.
remove() {
    rm -rf -- "$@" 2>/dev/null && return
    find "$@" -type d ! -perm -0700 -exec chmod u+rwx {} \;
    rm -rf -- "$@"
}

# Gives what was compressed by $codec.
decompress() {
    case $codec in
    none) cat ;;
    zstd) zstd -dcq ;;
    *)
        case $decompressor in
        gunzip) gunzip -c ;;
        zcat) zcat ;;
        gzip) gzip -dc ;;
        esac
        ;;
    esac
}

# Finds what decompresses what gzip made.
find_decompressor() {
    for decompressor in gunzip gzip zcat; do
        command -v "$decompressor" >/dev/null 2>&1 && return
    done
    lacks gunzip "none of gunzip, gzip and zcat is there"
}

find_zstd() {
    is_found zstd || lacks zstd "zstd is not there, or does not work"
    has_zstd=yes
}

# Says in a file what is missing to decompress an upload, which then comes again in another way.
lacks() {
    rm -rf "$upload_status"
    echo "no $1" > "$upload_status"
    echo "$2; nothing was changed" >&2
    exit 1
}

# Runs a command for each part of the archive $archive: its path, how many bytes of it are the archive's, and how these
# are compressed. $parts has a line with both for each part but the last, which comes as $last_size and $last_codec.
each_part() {
    part=$archive
    number=1
    if [ -f "$parts" ]; then
        while read -r part_size codec; do
            "$1" || return
            number=$((number + 1))
            part=$archive.$number
        done < "$parts"
    fi
    part_size=$last_size codec=$last_codec
    "$1"
}

# Checks a part: its size, and that it can be decompressed. (The command has checked the size of the last one already.)
check_part() {
    case $codec in
    gzip) [ -n "$decompressor" ] || find_decompressor ;;
    zstd) [ -n "$has_zstd" ] || find_zstd ;;
    esac
    [ "$part" != "$archive$last_suffix" ] || return 0
    size=$(wc -c < "$part") || return
    [ "$size" -eq "$part_size" ] || {
        echo "$size of the $part_size bytes of the archive's part $number arrived; nothing was changed, upload it again" >&2
        return 1
    }
}

# Takes a part to where no other upload writes. (The command has taken the last one.)
take_part() {
    [ "$part" = "$archive$last_suffix" ] || mv -f "$upload_archive${part#"$archive"}" "$part"
}

# Gives the part's bytes of the archive, and removes the part, unless it is the last one, which is removed with the archive.
part_bytes() {
    if [ "$part" != "$archive$last_suffix" ]; then
        decompress < "$part" && rm -f "$part"
    elif [ "$codec" = none ]; then
        head -c "$part_size" "$part"
    else
        head -c "$part_size" "$part" | decompress
    fi
}

# Checks that the sandbox has all parts of $archive, and removes nothing yet. Takes what the command knows of the last one.
check_parts() {
    last_suffix=$1 last_size=$2 last_codec=$3 decompressor= has_zstd=
    each_part check_part
}

# Extracts the parts of $archive in the current folder.
extract_parts() {
    if [ ! -s "$parts" ] && [ "$last_codec" = none ]; then
        (umask 0 && tar -xpf "$archive")
        return
    fi
    # In a pipe the failure of the first command would be lost.
    echo broken > "$archive.state" || return
    state=
    case $(tar --version 2>&1) in
    *toybox*)
        # Toybox takes what its first read gives for a whole header, and from a pipe that may be a part of one.
        { each_part part_bytes && echo whole > "$archive.state"; } > "$archive.whole"
        (umask 0 && tar -xpf "$archive.whole")
        ;;
    *) { each_part part_bytes && echo whole > "$archive.state"; } | (umask 0 && tar -xpf -) ;;
    esac && read -r state < "$archive.state" && [ "$state" = whole ] && rm -f "$archive.whole" && return
    # It may be zstd itself that fails. Then the archive comes again in another way.
    [ -z "$has_zstd" ] || echo "no zstd" > "$upload_status"
    [ -z "$state" ] || echo "a part of the archive is damaged; prepare the workspace again" >&2
    return 1
}

# The end of that part.

# Removes $archive with all of its parts, and the files that are given.
remove_archive() {
    rm -rf "$archive" "$archive.state" "$archive.whole" "$archive".[0-9]* "$@"
}

# Lists what the extraction left, or after an update what that touched, one line an entry, unless it is exactly what was
# packed. Nothing is listed where the tools of the sandbox cannot even list this script.
check_extraction() {
    if [ -f "$own/index.$upload" ]; then
        # The index says the same, and more.
        listing=list_by_index extracted=$own/index.$upload
        [ -z "$told" ] || extracted=$own/entries
        { [ "$preserved_count" = 0 ] || top_level preserved; } > "$own/preserved" || return
    else
        listing=list_by_find
        order=cat
        command -v sort >/dev/null 2>&1 && order=sort
        if [ "$(find "$self" -type f -exec stat -c f {} + 2>/dev/null)" = f ]; then
            by=stat
        elif [ "$(find "$self" -type f -exec sh -c 'echo f' {} + 2>/dev/null)" = f ]; then
            by=kind
        else
            return 0
        fi
        export by
    fi
    sum=$("$listing" | sha256sum 2>/dev/null)
    case $sum in
    "$expected"*) ;;
    *) { echo listed && "$listing"; } > "$own/found" || return ;;
    esac
}

list_by_find() {
    top_level list 2>/dev/null | "$order"
}

# From this line to the end of this part: what has changed in the workspace. A tolerant download does without.

# What an index says, for awk: the name at the top of a name, a time in whole seconds, and a mode as the local side has it.
# `find` says it in octal, and `stat` in hexadecimal with the kind.
index_functions='
    function top(name) { return match(substr(name, 3), /\//) ? substr(name, 1, RSTART + 1) : name }
    function seconds(time, at) {
        at = index(time, ".")
        return at ? substr(time, 1, at - 1) : time
    }
    function octal(digits, at, value) {
        for (at = 1; at <= length(digits); at++) value = value * 8 + substr(digits, at, 1)
        return value
    }
    function whole(mode) {
        if (!(mode in known)) {
            known[mode] = mode
            if (mode ~ /:/) known[mode] = substr(mode, 1, 1) sprintf("%03x", octal(substr(mode, 3)))
        }
        return known[mode]
    }'

# What makes the lines of an index out of those that `entries` gives. Two equal lines of a name in two indexes say that nothing
# has changed in between. A change in the tick in which an index is begun could leave no trace in the next one: so the line
# of what has changed at $tick or later equals no other.
#
# Right after an extraction that began at $began no file of it has a later time than the one that was extracted after it,
# unless it was changed again, which counts as a change. So its lines are held until all of them are known.
index_lines='
    # Some volumes know whole seconds alone.
    function late(time) {
        return time "" >= tick "" || time ~ /[.]0+( |$)/ && seconds(time) "" >= seconds(tick) ""
    }
    function marked(line) { return substr(line, 1, match(line, /\001[^\001]*$/)) "changed in " id }
    function is_bad() { return (NF != 2 && NF != 7) || $1 !~ /^\.\// }
    # Only a file with one name has its time from its own extraction.
    function is_extracted() { return NF == 7 && (late($7) || $2 ~ /^8/ && $3 == 1 && $7 "" >= began "") }
    function hold() { line[++held] = $0; time[held] = is_extracted() ? $7 : "" }
    function judge(at, least) {
        least = tick
        for (at = held; at > 0; at--) {
            if (time[at] == "") continue
            if (!late(time[at]) && time[at] "" <= least "") least = time[at]
            else line[at] = marked(line[at])
        }
    }'

list_by_index() {
    awk "$index_functions"'
        BEGIN { FS = "\001" }
        input == 1 { preserved[$0]; any = 1; next }
        any && top($1) in preserved { next }
        {
            kind = substr($2, 1, 1)
            if (kind == "8") print $1 FS "f " whole($2), $4, seconds($5)
            else if (kind == "4") print $1 FS "d " whole($2)
            else if (kind == "a") print $1 FS "l"
        }' input=1 "$own/preserved" input=2 "$extracted"
}

# Finds what can say all that an index needs: GNU find by itself, or `stat`. Keeps the time in $tick, as `clock` does.
find_lister() {
    separator=$(printf '\001')
    rest='\001%n\001%s\001%T@\001%i\001%C@'
    tick=
    echo > "$own/clock$asset_index" || return
    line=$(find "$own/clock$asset_index" -type f -printf "8:%m$rest" 2>/dev/null)
    case $line in
    8:[0-7]*"$separator"[1-9]*"$separator"[1-9]*"$separator"[0-9]*.[0-9]*"$separator"[0-9]*"$separator"[0-9]*.[0-9]*)
        lister=find
        tick=${line##*"$separator"}
        ;;
    *)
        lister=stat
        clock
        ;;
    esac
}

# Keeps in $tick the time that a file gets which changes now, by the clock of the file system that the workspace lies on.
clock() {
    tick=
    echo > "$own/clock$asset_index" || return
    case $lister in
    find) tick=$(find "$own/clock$asset_index" -printf %C@) ;;
    *) tick=$(stat -c %z "$own/clock$asset_index") ;;
    esac
}

# Waits until that time is no more $1, and keeps it in $tick: what changes from then on has another time than what had been
# changed by $1.
next_tick() {
    before=$1
    [ -n "$before" ] || return
    for pause in 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 1 1 1; do
        clock || return
        [ "$tick" = "$before" ] || return 0
        [ "$pause" = 0 ] || sleep "$pause" || return
    done
    return 1
}

# A line for each name of the workspace: of a directory its mode, of anything else its mode, how many names it has, its size,
# its time, its inode, and when it was changed last. The first digit of a mode is the kind.
entries() {
    if [ "$lister" = find ]; then
        lines_of_find . -mindepth 1 -path ./.paperclip-runtime -prune -o
    else
        top_level lines
    fi
}

# The lines of `entries` for the names that are given, without what is below a directory. A missing name has none.
entries_named() {
    "lines_of_$lister" "$@" -maxdepth 0 2>/dev/null || :
}

# The lines of all that `find` comes to with these arguments.
lines_of_find() {
    find "$@" -type d -printf '%p\0014:%m\n' \
        -o -type f -printf "%p\\0018:%m$rest\n" -o -type l -printf "%p\\001a:%m$rest\n" \
        -o -type s -printf "%p\\001c:%m$rest\n" -o -printf "%p\\0011:%m$rest\n"
}

# Like lines_of_find, where `stat` says what an index needs.
lines_of_stat() {
    separator=$(printf '\001')
    find "$@" -type d -exec stat -c "%n${separator}%f" {} + -o \
        -exec stat -c "%n${separator}%f${separator}%h${separator}%s${separator}%Y${separator}%i %y${separator}%z" {} +
}

# Writes an index into the file $1: the lines that the command $2 gives, sorted, and their number. An extraction, if there was
# one, began at $3. It fails where a name has a line break.
write_index() {
    began=${3-}
    # The last line says that all lines before it were written.
    if [ -z "$began" ]; then
        { "$2" && echo end; } | finished_lines "$1"
    else
        { "$2" && echo end; } | sort | finished_lines "$1"
    fi | sort > "$1" && finish_index "$1"
}

# Makes the lines of the index $1 out of those of `entries`. After an extraction these must be sorted.
finished_lines() {
    exec awk "$index_functions$index_lines"'
        BEGIN { FS = "\001" }
        $0 == "end" { ended = NR; next }
        is_bad() { exit }
        began == "" { print (NF == 7 && late($7) ? marked($0) : $0); next }
        is_extracted() { hold(); next }
        { print }
        END {
            if (!ended || ended != NR) exit
            judge()
            for (at = 1; at <= held; at++) print line[at]
            print "end " (NR - 1)
        }' id="${1##*.}" tick="$tick" began="$began"
}

# Writes into the file $1 the index of the workspace after an update that began at $2: for what the update touched the lines
# that were looked at, and for all else those of the index by which this sandbox has reported its changes. What has changed
# in between is a change that the next index shows. All of these lines are sorted already.
write_updated_index() {
    awk "$index_functions$index_lines"'
        function is_below(name) {
            while (sub(/\/[^\/]*$/, "", name)) if (name in removed) return 1
            return 0
        }
        BEGIN { FS = "\001" }
        input == 1 { removed[$0]; next }
        input == 2 { touched[$0]; next }
        input == 3 {
            if (is_bad()) exit
            hold()
            next
        }
        !judged { judge(); judged = 1 }
        /^end / { ended = 1; next }
        $1 in removed { if ($2 ~ /^4/) directories = 1; next }
        $1 in touched || directories && is_below($1) { next }
        {
            while (at < held && line[at + 1] "" < $0 "") { print line[++at]; count++ }
            print
            count++
        }
        END {
            if (!ended) exit
            while (at < held) { print line[++at]; count++ }
            print "end " count + 0
        }' id="${1##*.}" tick="$tick" began="$2" \
        input=1 "$work/remove" input=2 "$touched" input=3 "$work/entries" input=4 "$work/told" > "$1" && finish_index "$1"
}

# Keeps the checksum of an index that was written to its end, and removes one that was not.
finish_index() {
    case $(tail -n 1 "$1") in
    'end '*) checksum "$1" > "$1.sum" || rm -f "$1.sum" ;;
    *) rm -f "$1" && return 1 ;;
    esac
}

# Tells a damaged file from a whole one, and not one that was changed on purpose with its checksum. GNU's sha256sum takes eight
# times as long as cksum.
checksum() {
    cksum < "$1" 2>/dev/null || sha256sum < "$1" 2>/dev/null
}

# Whether an index ends with the number of its lines.
is_whole() {
    [ "$(tail -n 1 "$1")" = "end $(($(wc -l < "$1") - 1))" ]
}

# Whether an index exists, as it was written.
check_index() {
    [ -f "$1" ] || return
    if [ -f "$1.sum" ]; then
        read -r sum < "$1.sum" && [ "$(checksum "$1")" = "$sum" ]
    else
        is_whole "$1"
    fi
}

# Removes the indexes but $1: the local side has no use for them.
forget_indexes() {
    useful=$own/index.$1
    set --
    for stored in "$own"/index.*; do
        case $stored in
        "$useful" | "$useful.sum") ;;
        *) set -- "$@" "$stored" ;;
        esac
    done
    [ $# -eq 0 ] || rm -rf -- "$@"
}

# Writes the lines that only one of two indexes has into the file $3. Those of the second begin with a tab.
compare_indexes() {
    comm -3 "$1" "$2" > "$3" 2>/dev/null || awk '
        old { before[$0]; next }
        $0 in before { delete before[$0]; next }
        { print "\t" $0 }
        END { for (line in before) print line }' old=1 "$1" old=0 "$2" > "$3"
}

# Says what has changed since an index, a line a name, and adds the names of files and links to pack to the file $3:
# `f` a file or link that is new or changed, with its mode, number of names, size and time, `d` a folder, with its mode, `s` a
# device or FIFO, `x` what is never downloaded, `g` what is gone, `t` a file with another time alone, with its digest and time.
#
# Where anything of a repository has changed, all of it is packed but for objects that have not changed.
#
# Git gives a pack another time when it would store an object that is in it. A pack is never changed under its name, so the
# digest of one that looks changed, but has the same size and mode, is told instead of its content, which may be large.
tell_changes() {
    : > "$own/packs" && hashes= || return
    ! command -v sha256sum >/dev/null 2>&1 || hashes=1
    { [ "$excluded_count" = 0 ] || top_level excluded; } > "$own/excluded" &&
        compare_indexes "$1" "$2" "$own/differ" && awk "$index_functions"'
        function tell(kind) {
            kind = substr($2, 1, 1)
            if (top($1) in excluded) { if ($1 == top($1)) print "x " $1 }
            else if (kind == "4") print "d " whole($2) " " $1
            else if (kind == "8" || kind == "a") {
                print "f " whole($2), $3, $4, seconds($5), $1
                print $1 >> names
            }
            else if (kind == "c") print "x " $1
            else print "s " $1
        }
        function is_object(name) {
            return name ~ /\/objects\/([0-9a-f][0-9a-f]|pack|info)(\/|$)/ && name !~ /\/(refs|logs)\/.*\/objects\//
        }
        function is_pack() {
            return hashes && $2 ~ /^8/ && $3 == 1 && $1 ~ /\/pack\/pack-[0-9a-f]+\.pack$/ && is_object($1)
        }
        BEGIN { FS = "\001" }
        input == 1 { excluded[$0]; next }
        /^\t?end / { next }
        input == 2 {
            if (tolower($1) ~ /\/\.git(\/|$)/) git = 1
            if (!sub(/^\t/, "")) {
                gone[$1]
                if (is_pack()) before[$1] = $2 FS $4
                next
            }
            told[$1]
            if (is_pack()) pack[$1] = $0
            else tell()
            next
        }
        !git { exit }
        $1 in told || tolower($1) !~ /\/\.git(\/|$)/ { next }
        # The folders of objects that came must be told too.
        $2 ~ /^4/ || !is_object($1) { tell() }
        END {
            for (name in gone) if (!(name in told)) print "g " name
            for (name in pack) {
                $0 = pack[name]
                if (before[name] == $2 FS $4 && !(top(name) in excluded)) print seconds($5), name > packs
                else tell()
            }
        }' hashes="$hashes" names="$3" packs="$own/packs" \
        input=1 "$own/excluded" input=2 "$own/differ" input=3 "$2" && tell_touched "$own/packs"
}

# Says which upload this workspace is, and what has changed between two indexes, of which the local side knows the first.
answer_changes() {
    read -r mark < "$marks/mark" && printf 'mark %s\n' "$mark" && tell_tools &&
        printf 'indexed %s\nchanges %s\n' "${2##*.}" "${1##*.}" && tell_changes "$1" "$2" "$3"
}

# Says which content the files have that are listed in the file $1, each with its time.
tell_touched() {
    while IFS= read -r line; do
        sum=$(sha256sum < "${line#* }") && printf 't %s %s\n' "${sum%% *}" "$line" || return
    done < "$1"
}

# Packs what has changed since the index $1 into $archive, with the answer for the local side.
pack_changes() {
    names=$archive.names
    check_index "$1" && echo "$answer" > "$names" && answer_changes "$1" "$2" "$names" > "$own/answer" || return
    case $(tar --version 2>&1) in
    *"GNU tar"*)
        : > "$names.git" && exclude_anywhere || return
        if [ -n "$apart" ]; then
            awk '
                input == 1 { plain[$0]; next }
                !/\/\.git(\/|$)/ { print; next }
                {
                    count = split($0, name, "/")
                    for (at = 2; at <= count && name[at] != ".git"; at++) if (name[at] in plain) next
                    print > git
                }' git="$names.git" input=1 "$own/exclude" input=2 "$names" > "$names.rest" &&
                mv -f "$names.rest" "$names" || return
        fi
        tar -cf "$archive" --no-recursion --no-unquote --exclude-from="$own/exclude" -T "$names" || return
        [ ! -s "$names.git" ] || tar -rf "$archive" --no-recursion --no-unquote -T "$names.git" || return
        ;;
    *bsdtar*)
        tar -cf "$archive" --format gnutar -n -T "$names" || return
        ;;
    *)
        # More names than fit any command line are left to the full download.
        [ "$(wc -l < "$names")" -lt 1000 ] && [ "$(wc -c < "$names")" -lt 65536 ] || return
        set --
        while IFS= read -r name; do
            set -- "$@" "$name"
        done < "$names"
        tar -cf "$archive" "$@" || return
        ;;
    esac
}

# Packs what has changed since the index $1, and makes the index $2. Where that fails, there is neither.
pack_some() {
    check_index "$1" && find_lister && [ -n "$tick" ] && write_index "$2" entries && pack_changes "$1" "$2" && return
    rm -f "$2" "$2.sum"
    return 1
}

# Packs everything, and makes the index $1 where no name has come or gone meanwhile: a file that is packed and not in the index
# would be deleted later without a trace.
pack_all() {
    indexed=
    { echo > "$own/began" && find_lister && next_tick "$tick" && write_index "$1" entries && indexed=${1##*.}; } 2>/dev/null
    pack
    { [ -n "$indexed" ] && renamed=$(find . -prune -newer "$own/began" && top_level renamed) && [ -z "$renamed" ]; } 2>/dev/null ||
        rm -f "$1" "$1.sum"
}

# Keeps the index by which this sandbox has reported its changes beside this script.
keep_told() {
    check_index "$marks/$former/index.$told" && mv -f "$marks/$former/index.$told" "$own/told"
}

# Runs the command $1 with the names that are listed in the file $2, many at once.
with_listed() {
    with=$1 list=$2
    set --
    while IFS= read -r name; do
        set -- "$@" "$name"
        [ "$#" -lt 200 ] || { "$with" "$@" && set --; } || return
    done < "$list"
    [ "$#" -eq 0 ] || "$with" "$@"
}

# Looks at all that the update has sent or given another time: $touched is the file that lists it.
look_at_touched() {
    touched=$work/sent
    if [ -s "$work/touch" ]; then
        touched=$work/touched
        awk '{ sub(/^[^ ]* /, ""); print }' "$work/touch" | cat "$work/sent" - > "$touched" || return
    fi
    with_listed entries_named "$touched" | sort > "$work/entries"
}

# Sets the times of files that are listed in a file.
touch_listed() {
    while IFS= read -r line; do
        touch -c -d "@${line%% *}" -- "${line#* }" || return
    done < "$1"
}

# Extracts an asset's archive in the current folder, and removes the archive.
extract_asset() {
    # Toybox refuses an archive without an entry.
    [ ! -s "$parts" ] && [ "$last_codec" = none ] && [ "$last_size" -le 1024 ] || extract_parts || return
    remove_archive "$parts"
}

# Writes the index of what was extracted at $began into the file $1, after an update if there is a second argument. Without an
# index everything is sent again.
index_extracted() {
    { [ -n "$began" ] && clock && next_tick "$tick" &&
        if [ $# -eq 1 ]; then
            write_index "$1" entries "$began"
        else
            look_at_touched && write_updated_index "$1" "$began"
        fi; } 2>/dev/null || rm -f "$1" "$1.sum"
    rm -f "$own/clock$asset_index"
}

# Says which of the assets that are given, each by its folder and its index, are as they were extracted.
tell_assets() {
    while [ $# -gt 1 ]; do
        ! is_asset_unchanged "$1" "$2" 2>/dev/null || echo "asset $2"
        shift 2
        [ $# -gt 0 ] || rm -f "$own"/asset.*
    done
}

is_asset_unchanged() {
    [ ! -L "$1" ] && check_index "$marks/assets/$2" && (cd "$1" && write_index "$work/asset.now" entries) &&
        compare_indexes "$marks/assets/$2" "$work/asset.now" "$work/asset.differ" && [ ! -s "$work/asset.differ" ]
}

# The end of that part.

# The first failure is the one that counts. That of `find` is 2, since 1 is what tar says of a file that changed.
failed() {
    [ "$code" -ne 0 ] || code=$1
}

# Prepares what GNU tar leaves out anywhere. Where that is more than always, git's own files are packed by themselves: a pattern
# such as `dist` is not meant for a branch of that name. $apart is the option that leaves them out at first.
exclude_anywhere() {
    apart=
    [ -f "$own/exclude" ] || : > "$own/exclude" || return
    [ "$(wc -l < "$own/exclude")" -le 1 ] || is_excluded ./.git || apart=--exclude=.git
}

# Adds what belongs to git to $archive. Of what is left out, not everything is passed over here: the local side drops the rest.
# (A list of any length would take long, and fit no command line.)
pack_git() {
    set --
    while [ $# -lt 192 ] && IFS= read -r pattern; do
        case $pattern in
        ./*) set -- "$@" -path "$pattern" -o ;;
        */*) set -- "$@" -path "*/$pattern" -o ;;
        *) set -- "$@" -name "$pattern" -o ;;
        esac
    done < "$own/exclude"
    find . -mindepth 1 \( "$@" -path ./.paperclip-runtime \) -prune -o -name .git -prune \
        -exec sh -c 'printf "%s\000" "$@"' sh {} + > "$names"
    # What cannot be read is left out by a pattern, or tar has complained of it too.
    [ $? -le 1 ] || return 2
    [ ! -s "$names" ] || tar -rf "$archive" --no-unquote --null -T "$names"
}

# Packs the workspace into $archive, with the answer for the local side.
#
# The names come from `find`, because a shell's own patterns can be switched off from outside, and a name that is missed
# looks like one that was deleted. GNU tar and bsdtar read them from a file: in a pipe a failure of `find` would be lost,
# and a command line has an end. (Bsdtar's own format needs PAX records for names that are not text in the C locale.)
# Toybox is left to look for itself, as it cuts a line break off the end of a name that it is given. All others get the
# names as arguments, and where these are too many for one command line, the whole folder with the archive inside, which
# they pass over.
pack() {
    code=0
    names=$archive.names
    { printf 'mark %s\n' "$packed_mark" && tell_tools &&
        { [ -z "$indexed" ] || echo "indexed $indexed"; } &&
        { [ ! -f "$own/found" ] || cat "$own/found"; }; } > "$own/answer" || failed 2
    top_level names > "$names" || failed 2
    # What cannot be listed must not look like an empty folder.
    [ -s "$names" ] || [ "$code" -eq 0 ] || { rm -f "$names" && return; }
    printf '%s\000' "$answer" >> "$names" || failed 2
    case $(tar --version 2>&1) in
    *"GNU tar"*)
        exclude_anywhere || failed 2
        tar -cf "$archive" --no-unquote $apart --exclude-from="$own/exclude" --null -T "$names" || failed $?
        [ -z "$apart" ] || pack_git || failed $?
        ;;
    *bsdtar*)
        tar -cf "$archive" --format gnutar --null -T "$names" || failed $?
        ;;
    *toybox*)
        # Toybox calls a socket a failure, where all others pass it over.
        toybox_pack . ||
            [ "$(find . -type s -exec sh -c 'exec sh "$self" "$@"' sh without {} +)" = packed ] || failed 1
        ;;
    *)
        case $(top_level batch) in
        '') tar -cf "$archive" "$answer" || failed $? ;;
        batch) top_level pack_once || failed $? ;;
        *) tar -cf "$archive" "$answer" . || failed $? ;;
        esac
        ;;
    esac
    rm -f "$names"
}

# Removes what was written to find the changes.
remove_notes() {
    rm -rf "$own/clock" "$own/began" "$own/excluded" "$own/differ" "$own/packs" "$download_archive.names" \
        "$download_archive.names.git"
}

# Takes the name of this download. What the local side reads may be what another command has packed meanwhile, so the name is
# in the answer, behind the first part, in the names of those that follow, and in a file beside the mark.
begin_packing() {
    archive=$download_archive token=$1
    export archive
    cd "$dir" && mkdir -p "$own" || exit
    take_turn || {
        echo "another upload or download of this workspace has not ended in the sandbox, which \
.paperclip-runtime/uploading says; nothing was changed, restore again once it has ended" >&2
        exit 1
    }
    remove_archive "$archive.names" "$archive.messages" "$own/answer" "$marks/download" && remove_notes &&
        echo "$token" > "$marks/download" || exit
    packed_mark=$(cat "$marks/mark" 2>/dev/null)
    # One byte for each download. A sandbox with fewer than the local side knows of is an older state of itself.
    earlier=
    if [ -f "$own/downloads" ]; then
        earlier=" $(($(wc -c < "$own/downloads")))"
    else
        rm -rf "$own/downloads"
    fi
    echo >> "$own/downloads" || exit
}

# Whether no other upload has begun since packing began. It clears the workspace, and what it clears must not look deleted.
# (A mark that is gone was removed by the agent.)
is_same_upload() {
    now=$(cat "$marks/mark" 2>/dev/null)
    [ -z "$now" ] || [ "$now" = "$packed_mark" ] || {
        echo "another upload into this workspace has begun meanwhile; nothing was changed locally, prepare again" >&2
        return 1
    }
}

# A quarter of a megabyte of a larger file: its beginning, and what is a quarter, a half and three quarters into it.
samples() {
    whole=$(wc -c < "$1")
    for at in 0 "$((whole / 4))" "$((whole / 2))" "$((whole / 4 * 3))"; do
        tail -c +"$((at + 1))" "$1" | head -c 65536
    done
}

# Whether a part gets smaller by a twentieth at least, as far as samples tell.
shrinks() {
    [ "$(($(samples "$1" | compress | wc -c) * 20))" -lt "$(($(samples "$1" | wc -c) * 19))" ]
}

compress() {
    case $codec in
    zstd) zstd -q "-$level" -c ;;
    gzip) gzip "-$level" -c ;;
    esac
}

# Compresses a part of $2 bytes where that pays. Says how it is now in one letter, $letter.
compress_part() {
    letter=n
    if [ "$codec" != none ]; then
        plain=$2
        # A small part shows by itself whether it gets smaller.
        if [ "$plain" -le 1048576 ]; then
            level=6
            compress < "$1" > "$1.pressed" && pressed=$(wc -c < "$1.pressed") || return
        else
            level=1
            pressed=$plain
            ! shrinks "$1" || { compress < "$1" > "$1.pressed" && pressed=0; } || return
        fi
        if [ "$((pressed * 20))" -lt "$((plain * 19))" ]; then
            mv -f "$1.pressed" "$1" || return
            letter=${codec%"${codec#?}"}
        else
            rm -f "$1.pressed"
        fi
    fi
}

# Compresses a part, and writes its letter into a file.
note_compressed() {
    compress_part "$1" "$2" && echo "$letter" > "$1.letter"
}

# Cuts $archive into parts of $1 bytes, a multiple of 64 KiB, from its end, so that no second archive needs room; and
# compresses them, two at a time, with the first of the programs $2 and so on that the sandbox has. A line after the first
# part tells how they were compressed, and the name of the download.
cut_into_parts() {
    part_size=$1
    shift
    codec=none
    for wanted do
        [ "$codec" = none ] && is_found "$wanted" && codec=$wanted
    done
    size=$(wc -c < "$archive") || return
    count=$(((size + part_size - 1) / part_size))
    [ "$count" -gt 1 ] || { [ "$codec" != none ] && [ "$size" -gt 16384 ]; } || codec=none
    blocks=$((part_size / 65536))
    bytes=$((size - part_size * (count - 1)))
    number=$count
    waiting=
    while [ "$number" -gt 1 ]; do
        part=$archive.$number-$token
        at=$((blocks * (number - 1)))
        if command -v dd >/dev/null 2>&1; then
            dd if="$archive" of="$part" bs=65536 skip="$at" count="$blocks" 2>/dev/null &&
                dd if=/dev/null of="$archive" bs=65536 seek="$at" count=0 2>/dev/null || return
        else
            tail -c +"$((at * 65536 + 1))" "$archive" | head -c "$part_size" > "$part" || return
        fi
        if [ -n "$waiting" ]; then
            note_compressed "$part" "$bytes" && wait "$waiting" || return
            waiting=
        else
            note_compressed "$part" "$bytes" &
            waiting=$!
        fi
        bytes=$part_size
        number=$((number - 1))
    done
    # Without dd, all of the archive is still in its first part.
    if [ "$count" -gt 1 ] && [ "$(wc -c < "$archive")" -gt "$part_size" ]; then
        head -c "$part_size" "$archive" > "$archive.1" && mv -f "$archive.1" "$archive" || return
    fi
    compress_part "$archive" "$bytes" || return
    [ -z "$waiting" ] || wait "$waiting" || return
    letters=$letter
    while [ "$number" -lt "$count" ]; do
        number=$((number + 1))
        read -r letter < "$archive.$number-$token.letter" || return
        letters=$letters$letter
        rm -f "$archive.$number-$token.letter"
    done
    printf '\npaperclip-parts %s %s %s %s\n' "$part_size" "$size" "$letters" "$token" >> "$archive"
}

step=$1
shift

# Takes names out that a step leaves alone. Most batches have none, and to build a list anew takes the longer the more
# names there are.
leaves_alone=
case $step in
clear | list) leaves_alone=is_preserved ;;
pack_once) leaves_alone=is_excluded ;;
esac
if [ -n "$leaves_alone" ]; then
    some=
    for name do
        "$leaves_alone" "$name" && some=yes && break
    done
    [ -z "$some" ] || for name do
        shift
        "$leaves_alone" "$name" || set -- "$@" "$name"
    done
    [ $# -gt 0 ] || exit 0
fi

case $step in
upload)
    archive=$own/archive parts=$own/parts
    trap remove_archive EXIT
    last_suffix=$1
    each_part take_part && check_parts "$@" || exit
    { [ -d "$dir" ] || mkdir -p "$dir"; } && cd "$dir" || exit
    wait_for_others "$1"
    if [ -n "$told" ]; then
        keep_told || { echo "the index is gone; everything is to be uploaded" >&2 && exit 1; }
    else
        check_place
        check_preserved
    fi
    # By this the commands of later restores see that our own files are as they were extracted.
    rm -rf "$own/sum"
    (cd "$own" && cat control.sh script.sh exclude | { cksum || sha256sum; } > sum) 2>/dev/null || rm -f "$own/sum"
    : > "$own/downloads" && claim || exit
    find_lister 2>/dev/null
    if [ -n "$told" ]; then
        with_listed remove "$own/remove" && [ -n "$tick" ] || exit
        if [ -s "$own/touch" ]; then
            touch_listed "$own/touch" && clock && next_tick "$tick" || exit
        fi
    else
        [ -w . ] || chmod u+rwx . || exit
        remove_earlier_uploads && top_level clear || exit
    fi
    began=$tick
    [ "$holds_entries" = 0 ] || extract_parts || exit
    # What an upload has left that was cut short.
    remove_archive "$upload_archive".[0-9]* || exit
    [ -e .paperclip-runtime/.gitignore ] ||
        { rm -f .paperclip-runtime/.gitignore && echo '*' > .paperclip-runtime/.gitignore; } || exit
    index_extracted "$own/index.$upload" ${told:+updated}
    check_extraction || exit
    # The local side compares a list that differs with a full download. Without an index there is no other.
    [ ! -f "$own/found" ] || forget_indexes none
    set -- "$own/told" "$own/remove" "$own/touch" "$own/sent" "$own/touched" "$own/entries" "$own/preserved"
    [ -z "$told" ] || set -- "$@" "$marks/$former"
    rm -rf -- "$@"
    [ -z "$told" ] || [ -f "$own/index.$upload" ] || {
        echo "the sandbox is not as it was to be; everything is to be uploaded" >&2
        exit 1
    }
    ;;
clear)
    remove "$@"
    ;;
list)
    separator=$(printf '\001')
    if [ "$by" = stat ]; then
        find "$@" -type f -exec stat -c "%n${separator}f %f %s %Y" {} + \
            -o -type d -exec stat -c "%n${separator}d %f" {} + -o -type l -exec stat -c "%n${separator}l" {} +
    else
        kind='letter=$1; shift; for name do printf "%s\001%s\n" "$name" "$letter"; done'
        find "$@" -type f -exec sh -c "$kind" sh f {} + \
            -o -type d -exec sh -c "$kind" sh d {} + -o -type l -exec sh -c "$kind" sh l {} +
    fi
    ;;
lines)
    lines_of_stat "$@"
    ;;
preserved)
    for name do
        ! is_preserved "$name" || printf '%s\n' "$name"
    done
    ;;
excluded)
    for name do
        ! is_excluded "$name" || printf '%s\n' "$name"
    done
    ;;
names)
    for name do
        is_excluded "$name" || printf '%s\000' "${name#./}"
    done
    ;;
renamed)
    for name do
        is_excluded "$name" || find "$name" -type d -newer "$own/began"
    done
    ;;
batch)
    for name do
        is_excluded "$name" || { echo batch && exit; }
    done
    ;;
pack_once)
    # A second call would replace what the first one packed.
    [ -e "$archive" ] || exec tar -cf "$archive" "$answer" "$@"
    ;;
without)
    for name do
        shift
        set -- "$@" "--exclude=$(printf '%s' "$name" | sed 's/[][*?\\]/\\&/g')"
    done
    toybox_pack "$@" . && echo packed
    ;;
asset)
    asset=$1 archive=$2 parts=$2.parts asset_index=$3
    shift 3
    # The list of the other parts follows the last one.
    tail -c +"$(($2 + 1))" "$archive$1" > "$parts" && check_parts "$@" || exit
    index=$marks/assets/$asset_index
    [ -z "$asset_index" ] || { mkdir -p "$marks/assets" && rm -f "${index%.*}".*; } || exit
    remove "$asset" && mkdir -p "$asset" && cd "$asset" || exit
    [ -z "$asset_index" ] || find_lister 2>/dev/null
    began=$tick
    extract_asset || exit
    [ -z "$asset_index" ] || index_extracted "$index"
    ;;
asset_change)
    # The list of the other parts follows the last one, and with it what is removed before and what the archive has.
    asset=$1 archive=$2 parts=$2.parts asset_index=$3 former=$7
    work=$own/asset-$asset_index index=$marks/assets/$asset_index
    mkdir -p "$work" && tail -c +"$(($5 + 1))" "$archive$4" > "$work/lists" &&
        awk '/^[0-9]/' "$work/lists" > "$parts" && awk '/^- / { print substr($0, 3) }' "$work/lists" > "$work/remove" &&
        awk '/^[+] / { print substr($0, 3) }' "$work/lists" > "$work/sent" && : > "$work/touch" &&
        check_parts "$4" "$5" "$6" || exit
    find_lister 2>/dev/null
    { [ -n "$tick" ] && is_asset_unchanged "$asset" "$former" && mv -f "$work/asset.now" "$work/told" &&
        cd "$asset"; } 2>/dev/null || {
        echo "the asset is not as it was; all of it is to be uploaded" >&2
        exit 1
    }
    with_listed remove "$work/remove" || exit
    began=$tick
    extract_asset && rm -f "$marks/assets/$former" "$marks/assets/$former.sum" || exit
    [ -z "$asset_index" ] || index_extracted "$index" updated
    rm -rf "$work"
    ;;
changed)
    have=$own/index.$1 make=$own/index.$2
    take_turn || exit
    # What is here now would be in the way of the files that come next.
    rm -rf "$changes_told"
    [ ! -d "$upload_archive" ] || rm -rf "$upload_archive"
    find_lister
    cd "$dir" && forget_indexes "$1" && [ -n "$tick" ] && write_index "$make" entries && check_index "$have" || exit
    shift 2
    { tell_assets "$@" && answer_changes "$have" "$make" /dev/null; } > "$changes_told" && remove_notes
    ;;
download)
    have=$own/index.$1 make=$own/index.$2
    begin_packing "$2"
    shift 2
    forget_indexes "${have##*.}" || exit
    code=0
    pack_some "$have" "$make" 2>/dev/null || pack_all "$make"
    remove_notes
    is_same_upload || failed 2
    [ "$code" -ne 0 ] || cut_into_parts "$@" || failed 2
    [ "$code" -eq 0 ] || remove_archive
    exit "$code"
    ;;
tolerant)
    # What could not be read is left out, and said in a file: the exit status in the first line, messages after that.
    begin_packing "$1"
    shift
    messages=$archive.messages
    indexed=
    { pack && is_same_upload && cut_into_parts "$@"; } 2> "$messages" || remove_archive
    if [ -f "$archive" ]; then
        rm -rf "$status"
        { echo "$code" && head -c "$messages_max" "$messages"; } > "$status" && rm -f "$messages"
    else
        cat "$messages" >&2
        rm -f "$messages"
        exit 1
    fi
    ;;
esac

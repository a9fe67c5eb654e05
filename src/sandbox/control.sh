# The sandbox's side of a round trip. What comes before this line sets the paths and lists that are used below.
#
# A sandbox may hold any of dash, bash and busybox as its `sh`, and any of GNU tar, bsdtar, busybox and toybox as its
# `tar`; Debian's busybox tar knows neither `--exclude` nor `-T`. So this uses what all of them share, and more only
# where `tar --version` says whose it is. Needed are sh, tar, find, mkdir, rm, wc, head, tail and cat; used where they
# are found: stat, sort, sha256sum, sed, chmod and id.
#
# It calls itself by `find -exec`, which gives it the names at the top of the workspace. They begin with `./`, so none
# of them is taken for an option.

set +f
# Options for tar from outside are taken away, and in the C locale a name is its bytes.
unset TAR_OPTIONS
LC_ALL=C
export LC_ALL

self=$own/control.sh
export self

# Calls this script for what is at the top of the workspace. (`find` would replace a `{}` in the script's own path.)
top_level() {
    find . -mindepth 1 -maxdepth 1 ! -name .paperclip-runtime -exec sh -c 'exec sh "$self" "$@"' sh "$@" {} +
}

refuse() {
    rm -f "$upload_archive"
    echo "the workspace's folder in the sandbox is refused: $1; nothing was changed, choose a folder of its own" >&2
    exit 1
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
        "$here"/) refuse "$here is the home folder of the sandbox's user" ;;
        "$here"/*) refuse "$here holds the home folder of the sandbox's user" ;;
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
        refuse "$here is a folder of the system"
        ;;
    esac
}

# Names this upload wherever another one has left its mark in this workspace, which is about to be replaced, and removes
# what earlier uploads of this run have left. From here on no older session takes this workspace for its own.
claim() {
    export upload
    find .paperclip-runtime -mindepth 3 -maxdepth 3 -type f -name mark -exec sh -c '
        for mark do
            case $mark in
            */.paperclip/mark) echo "$upload" > "$mark" || exit ;;
            esac
        done' sh {} + || return
    echo "$upload" > "$marks/mark" &&
        find "$marks" -mindepth 1 -maxdepth 1 ! -name mark ! -name "$upload" -exec rm -rf -- {} +
}

# Removes with all that is in them, also where a folder is read-only.
remove() {
    rm -rf -- "$@" 2>/dev/null && return
    find "$@" -type d ! -perm -0700 -exec chmod u+rwx {} \;
    rm -rf -- "$@"
}

# Lists what the extraction left, one line an entry, unless it is exactly what was packed. Tools that do not find and list
# this script say nothing of the workspace either.
check_extraction() {
    if [ "$(find "$self" -type f -exec stat -c f {} + 2>/dev/null)" = f ]; then
        by=stat
    elif [ "$(find "$self" -type f -exec sh -c 'echo f' {} + 2>/dev/null)" = f ]; then
        by=kind
    else
        return 0
    fi
    export by
    order=cat
    command -v sort >/dev/null 2>&1 && order=sort
    top_level list 2>/dev/null | "$order" > "$own/list" || return
    sum=$(sha256sum < "$own/list" 2>/dev/null)
    case $sum in
    "$expected"*) ;;
    *) { echo listed && cat "$own/list"; } > "$own/found" || return ;;
    esac
    rm -f "$own/list"
}

# The first failure is the one that counts. That of `find` is 2, since 1 is what tar says of a file that changed.
failed() {
    [ "$code" -ne 0 ] || code=$1
}

# Packs the workspace into $archive, with the answer for the other side.
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
    { printf 'mark ' && { cat "$marks/mark" 2>/dev/null || echo; } &&
        { [ ! -f "$own/found" ] || cat "$own/found"; }; } > "$own/answer" || failed 2
    top_level names > "$names" || failed 2
    # What cannot be listed must not look like an empty folder.
    [ -s "$names" ] || [ "$code" -eq 0 ] || { rm -f "$names" && return; }
    printf '%s\000' "$answer" >> "$names" || failed 2
    case $(tar --version 2>&1) in
    *"GNU tar"*)
        [ -f "$own/exclude" ] || : > "$own/exclude"
        tar -cf "$archive" --no-unquote --exclude-from="$own/exclude" --null -T "$names" || failed $?
        ;;
    *bsdtar*)
        tar -cf "$archive" --format gnutar --null -T "$names" || failed $?
        ;;
    *toybox*)
        # It calls a socket a failure, where all others pass it over.
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

begin_packing() {
    archive=$download_archive
    export archive
    cd "$dir" && mkdir -p "$own" && rm -f "$archive" || exit
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
    mkdir -p "$dir" && cd "$dir" || exit
    check_place
    claim || exit
    top_level clear || exit
    [ "$holds_entries" = 0 ] || (umask 0 && tar -xpf "$upload_archive") || exit
    rm -f "$upload_archive" || exit
    [ -e .paperclip-runtime/.gitignore ] || echo '*' > .paperclip-runtime/.gitignore || exit
    check_extraction || exit
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
names)
    for name do
        is_excluded "$name" || printf '%s\000' "${name#./}"
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
download)
    begin_packing
    pack
    [ "$code" -eq 0 ] || rm -f "$archive"
    exit "$code"
    ;;
tolerant)
    # What could not be read is left out, and said in a file: the exit status in the first line, messages after that.
    begin_packing
    messages=$archive.messages
    pack 2> "$messages"
    if [ -f "$archive" ]; then
        { echo "$code" && head -c "$messages_max" "$messages"; } > "$status" && rm -f "$messages"
    else
        cat "$messages" >&2
        rm -f "$messages"
        exit 1
    fi
    ;;
esac

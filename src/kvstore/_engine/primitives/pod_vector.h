// A growing array of plain data that never throws, for code that may not see an exception.
#ifndef KVSTORE_POD_VECTOR_H
#define KVSTORE_POD_VECTOR_H

#include <cstddef>
#include <cstring>
#include <type_traits>
#include <utility>

namespace kvstore {

// kv_realloc of memory.pxd; with a size of 0 it frees.
using Resize = void* (*)(void*, std::size_t);

// Items are moved as bytes and dropped without a destructor. Every call that may allocate takes the
// seam to memory (each extension module has its own copy of the function, so a header can't name
// it) and ends with 0, or with -1 and nothing changed.
template <class T>
class PodVector {
    static_assert(std::is_trivially_copyable<T>::value, "items are moved as bytes");

  public:
    PodVector() = default;
    ~PodVector() { release(); }
    PodVector(const PodVector&) = delete;
    PodVector& operator=(const PodVector&) = delete;

    std::size_t size() const { return size_; }
    bool empty() const { return size_ == 0; }
    T* data() { return items_; }
    T& operator[](std::size_t i) { return items_[i]; }
    T& back() { return items_[size_ - 1]; }

    // Room for `more` items after the present ones.
    int reserve(std::size_t more, Resize resize) {
        if (more <= capacity_ - size_) return 0;
        const std::size_t most = static_cast<std::size_t>(-1) / 2 / sizeof(T);
        if (more > most - size_) return -1;
        std::size_t capacity = capacity_ < 4 ? 4 : capacity_ > most / 2 ? most : capacity_ * 2;
        if (capacity < size_ + more) capacity = size_ + more;
        T* items = static_cast<T*>(resize(items_, capacity * sizeof(T)));
        if (!items) return -1;
        resize_ = resize;
        items_ = items;
        capacity_ = capacity;
        return 0;
    }
    int push(T item, Resize resize) {
        if (size_ == capacity_ && reserve(1, resize) < 0) return -1;
        items_[size_++] = item;
        return 0;
    }
    // After reserve(): can't fail.
    void push_reserved(T item) { items_[size_++] = item; }
    // New items are zero bytes.
    int resize(std::size_t size, Resize resize) {
        if (size > size_) {
            if (reserve(size - size_, resize) < 0) return -1;
            std::memset(static_cast<void*>(items_ + size_), 0, (size - size_) * sizeof(T));
        }
        size_ = size;
        return 0;
    }
    int insert(std::size_t at, T item, Resize resize) {
        if (reserve(1, resize) < 0) return -1;
        std::memmove(static_cast<void*>(items_ + at + 1), items_ + at, (size_ - at) * sizeof(T));
        items_[at] = item;
        size_++;
        return 0;
    }
    void remove(std::size_t at) {
        size_--;
        std::memmove(static_cast<void*>(items_ + at), items_ + at + 1, (size_ - at) * sizeof(T));
    }
    void pop() { size_--; }
    // Keeps the memory.
    void clear() { size_ = 0; }
    void release() {
        if (items_) resize_(items_, 0);
        items_ = nullptr;
        size_ = capacity_ = 0;
    }
    void swap(PodVector& other) {
        std::swap(items_, other.items_);
        std::swap(size_, other.size_);
        std::swap(capacity_, other.capacity_);
        std::swap(resize_, other.resize_);
    }

  private:
    T* items_ = nullptr;
    std::size_t size_ = 0;
    std::size_t capacity_ = 0;
    Resize resize_ = nullptr;
};

}  // namespace kvstore

#endif
